// The list of sessions: it follows the filters as they are typed, and counts what is ticked.
import { refresh } from "./regions.js";

const PAUSE = 250;

function addressOf(form) {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value !== "") query.append(name, value);
  const text = query.toString();
  return form.action + (text ? `?${text}` : "");
}

function prepareFilters(form) {
  let timer = 0;
  const look = () => {
    const address = addressOf(form);
    if (address === location.href) return;
    history.replaceState(null, "", address);
    form.setAttribute("aria-busy", "true");
    refresh(address, { force: true }).then((done) => {
      form.removeAttribute("aria-busy");
      if (!done) location.reload();
      const count = document.querySelectorAll("#results tbody tr").length;
      document.getElementById("found").textContent = count === 1 ? "1 session shown" : `${count} sessions shown`;
    });
  };
  form.addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(look, event.target.matches("input[type=search], input[type=text]") ? PAUSE : 0);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    look();
  });
  // What was typed before this script was there.
  const typed = [...form.querySelectorAll("input[type=search], input[type=text]")];
  if (typed.some((field) => field.value !== field.defaultValue)) look();
}

function count() {
  const boxes = [...document.querySelectorAll("input[name=pick]")];
  const ticked = boxes.filter((box) => box.checked).length;
  for (const button of document.querySelectorAll("[data-bulk]")) button.disabled = ticked === 0;
  const told = document.getElementById("ticked");
  if (told) told.textContent = ticked === 0 ? "None ticked" : `${ticked} ticked`;
  const all = document.getElementById("all");
  if (all) {
    all.checked = boxes.length > 0 && ticked === boxes.length;
    all.indeterminate = ticked > 0 && ticked < boxes.length;
  }
}

export function prepareList() {
  const form = document.getElementById("filters");
  if (!form) return;
  prepareFilters(form);
  document.addEventListener("change", (event) => {
    if (event.target.id === "all") {
      for (const box of document.querySelectorAll("input[name=pick]")) box.checked = event.target.checked;
    }
    if (event.target.matches("#all, input[name=pick]")) count();
  });
  document.addEventListener("regions", count);
  count();
}
