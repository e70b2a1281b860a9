// The parts of a page that are replaced by what the server says of them now. What somebody is busy with stays.
function busy(region) {
  const active = document.activeElement;
  if (active && region.contains(active) && active.matches("input:not([type=checkbox]), textarea, select")) return true;
  for (const field of region.querySelectorAll("input[type=text], input:not([type]), textarea")) {
    if (field.value !== field.defaultValue) return true;
  }
  return region.querySelector("dialog[open]") !== null;
}

function same(old, fresh) {
  // Words for times and counted-down seconds differ at every look; they are kept true elsewhere.
  const bare = (element) => {
    const copy = element.cloneNode(true);
    for (const moving of copy.querySelectorAll("time[data-ago], [data-countdown]")) moving.textContent = "";
    for (const box of copy.querySelectorAll("details[open]")) box.removeAttribute("open");
    for (const button of copy.querySelectorAll("[data-bulk]")) button.removeAttribute("disabled");
    return copy.innerHTML;
  };
  return bare(old) === bare(fresh);
}

function replace(old, fresh) {
  const ticked = new Set([...old.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value));
  const open = new Set([...old.querySelectorAll("details[open][id]")].map((details) => details.id));
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const next = document.importNode(fresh, true);
  for (const box of next.querySelectorAll("input[type=checkbox]")) if (ticked.has(box.value)) box.checked = true;
  for (const details of next.querySelectorAll("details[id]")) if (open.has(details.id)) details.open = true;
  old.replaceWith(next);
  if (focused?.id) document.getElementById(focused.id)?.focus();
  else if (focused?.matches("input[type=checkbox]")) {
    [...next.querySelectorAll("input[type=checkbox]")].find((box) => box.value === focused.value)?.focus();
  } else if (focused?.getAttribute("href")) {
    [...next.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused.getAttribute("href"))?.focus();
  }
}

let latest = 0;

// Asks for a page and takes over its regions; false where it could not be had.
export async function refresh(address = location.href, { force = false } = {}) {
  const turn = ++latest;
  let answer;
  try {
    answer = await fetch(address, { headers: { Accept: "text/html", "Lifecycle-Part": "regions" }, redirect: "error" });
  } catch {
    return false;
  }
  // A session that is gone answers 404: its page stays as it was, the stream tells.
  if (!answer.ok && answer.status !== 422) return false;
  const text = await answer.text();
  if (turn !== latest) return true;
  const page = new DOMParser().parseFromString(text, "text/html");
  for (const fresh of page.querySelectorAll("[data-region]")) {
    const old = document.getElementById(fresh.id);
    if (old && (force || !busy(old)) && !same(old, fresh)) replace(old, fresh);
  }
  document.dispatchEvent(new CustomEvent("regions"));
  return true;
}
