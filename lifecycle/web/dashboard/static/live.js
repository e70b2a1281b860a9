// The stream of transitions: one connection, which the browser takes up again behind the last event it had.
import { refresh } from "./regions.js";
import { ago } from "./times.js";

const { live, events, session, tenant, idle } = document.body.dataset;
// However much happens, the server is asked for the page no more often than this, in milliseconds.
const SPACING = 1000;
const QUIET = 3000;

let due = 0;
let last = 0;

function soon() {
  if (due) return;
  due = setTimeout(async () => {
    due = 0;
    last = Date.now();
    await refresh();
  }, Math.max(50, last + SPACING - Date.now()));
}

// Screen readers are told of what happened once it has calmed down, not of every line.
let untold = [];
let telling = 0;

function tell(text) {
  untold.push(text);
  clearTimeout(telling);
  telling = setTimeout(() => {
    const told = document.getElementById("told");
    told.textContent = untold.length > 3 ? `${untold.length} transitions` : untold.join(". ");
    untold = [];
  }, QUIET);
}

function show(status, text) {
  const shown = document.getElementById("stream");
  if (!shown) return;
  shown.dataset.status = status;
  shown.querySelector("span").textContent = text;
}

function sentence(event) {
  return `${event.session_id}: ${event.trigger.replace("_", " ")}`;
}

// A new line on top of the overview's list, made from its template: text only, never markup.
function add(event) {
  const list = document.getElementById("recent");
  const template = document.getElementById("line");
  if (!list || !template) return;
  const item = template.content.firstElementChild.cloneNode(true);
  const state = event.to_state ?? "gone";
  item.querySelector(".dot").classList.add(`state-${state}`);
  const link = item.querySelector("a");
  const query = new URLSearchParams({ id: event.session_id });
  if (event.tenant) query.set("tenant", event.tenant);
  link.href = `${link.dataset.base}?${query}`;
  link.querySelector("bdi").textContent = event.session_id;
  item.querySelector(".what").textContent = event.trigger.replace("_", " ");
  item.querySelector(".why").textContent = [event.actor && `by ${event.actor}`, event.reason].filter(Boolean).join(" · ");
  const time = item.querySelector("time");
  time.dateTime = event.created_at;
  time.title = event.created_at;
  time.textContent = ago(Date.parse(event.created_at));
  item.classList.add("new");
  list.prepend(item);
  while (list.children.length > Number(list.dataset.most)) list.lastElementChild.remove();
  document.getElementById("nothing")?.remove();
}

function happened(message) {
  let event;
  try {
    event = JSON.parse(message.data);
  } catch {
    return;
  }
  if (live === "session") {
    if (event.session_id !== session || (event.tenant ?? "") !== (tenant ?? "")) return;
    tell(sentence(event));
  } else if (live === "overview") {
    add(event);
    tell(sentence(event));
    return;
  }
  soon();
}

export function follow() {
  if (!live) return;
  // What is no transition (leases, saves, samples, beats) is looked at now and then, while somebody looks.
  setInterval(() => document.visibilityState === "visible" && soon(), Number(idle) * 1000);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && soon());
  if (!events) return;
  const source = new EventSource(events);
  source.addEventListener("open", () => {
    show("on", "Live");
    // What was committed since the page was made, before the stream began.
    soon();
  });
  source.addEventListener("error", () => show("off", source.readyState === EventSource.CLOSED ? "Not live" : "Reconnecting"));
  source.addEventListener("message", happened);
  source.addEventListener("transition", happened);
}
