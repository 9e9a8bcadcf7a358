/* page-dom.js: the small things that every part of the page at / uses: elements, texts, formats, and one update a frame. */

export const $ = (id) => document.getElementById(id);
export const count = new Intl.NumberFormat("en");
const SVG = "http://www.w3.org/2000/svg";

/** An element with a class and a text. What comes from the wire is always given as text. */
export function element(name, className = "", text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

export function drawn(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** Write only what is new: a live region says again what is written again, and the browser lays out again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A function that has `act` called in the next frame, once, however often it is called before; in the background by a timer. */
export function onceAFrame(act) {
  let due = false;
  const run = () => {
    due = false;
    act();
  };
  return () => {
    if (due) return;
    due = true;
    if (document.hidden) setTimeout(run, 250);
    else requestAnimationFrame(run);
  };
}

/** Seconds as people say them: 0.4 ms, 12 ms, 3.1 s, 4 min 5 s, 2 h 3 min. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${(value * 1000).toFixed(2)} ms`;
  if (value < 0.9995) return `${value < 0.01 ? (value * 1000).toFixed(1) : Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

export function megabytes(bytes) {
  return bytes ? `${(bytes / 2 ** 20).toFixed(0)} MiB` : "–";
}

export function asJson(value, limit, indent = 0) {
  const text = JSON.stringify(value, null, indent) ?? "";
  return text.length > limit ? `${text.slice(0, limit)} … ${count.format(text.length - limit)} characters more` : text;
}

/** A state or an event in words; of a task whose sender wants its end alone, a worker tells nothing else, so it stays `dispatched`. */
export function stateName(state) {
  return state === "dispatched" ? "at a worker" : state.replace("_", " ");
}

/** Text with what stands in `backticks` as code. */
export function markCode(text) {
  return text.split(/`([^`]+)`/).map((part, index) => (index % 2 ? element("code", "", part) : part));
}

export const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** The gateway's clock, by what it said last: elapsed times do not depend on the machine that looks. */
export const time = {
  ahead: 0,
  heard(at) {
    this.ahead = at - Date.now() / 1000;
  },
  now() {
    return Date.now() / 1000 + this.ahead;
  },
};
