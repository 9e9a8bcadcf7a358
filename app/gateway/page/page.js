/* page.js: the page at /. It hands tasks off: the thousand mails, and any other by its name. How one is shown is page-task.js, how it
 * reaches the gateway and survives a reload is handoff.js. What comes from the wire goes into the page as text, never as HTML. */

import { Handoff, HandoffError } from "./handoff.js";
import { asJson, count, duration, element, setText, TaskView } from "./page-task.js";

const PING_EVERY = 2000;
const EXAMPLES = {
  from: "news@example.org", to: "you@example.org", subject: "Hello", contents: "Good news, everyone.",
  seconds: 5, start: 20, below: 1000000,
};
const BY_TYPE = { str: "", int: 1, float: 1, bool: false, list: [], dict: {}, none: null };

const $ = (id) => document.getElementById(id);
const handoff = new Handoff(undefined, { storage: tabStorage() });
const running = new Set(); // views of unfinished tasks
const asking = new Set(); //  names of requests that are out
let catalogue = [];

/** The storage of this tab; null where the browser denies it. */
function tabStorage() {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

// ------------------------------------------------------------------------------------------------------- the connection

const STATES = {
  connecting: () => "connecting",
  open: () => "connected",
  waiting: () => "reconnecting",
  closed: ({ code, reason }) => `refused: ${reason || code}`,
};

function showConnection(change) {
  if (change.state === "connecting" && $("connection").dataset.state === "waiting") return; // an attempt is part of the wait
  $("connection").dataset.state = change.state;
  $("connection-text").textContent = STATES[change.state](change);
  $("connection").title = change.reason ?? "";
  $("round-trip").textContent = "";
  $("try-now").hidden = change.state === "open" || change.state === "connecting";
}

async function showRoundTrip() {
  if (handoff.state !== "open" || document.hidden || asking.has("ping")) return;
  const ms = await ask("ping");
  if (ms !== undefined) $("round-trip").textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** The answer to a request, which outlives lost connections and so is asked once at a time; undefined where it is refused for good. */
async function ask(name) {
  asking.add(name);
  try {
    return await handoff[name]();
  } catch (error) {
    if (!(error instanceof HandoffError)) throw error;
    $("function-doc").textContent = error.message;
    return undefined;
  } finally {
    asking.delete(name);
  }
}

// ------------------------------------------------------------------------------------------------------------- the tasks

function showTask(task) {
  const view = new TaskView(task, $("task-template"));
  running.add(view);
  task.on("end", () => running.delete(view));
  task.on("end", () => setText($("announcer"), `${task.function} ${task.state}`));
  task.on("end", showTaskCount);
  $("tasks").prepend(view.node);
  showTaskCount();
  return view;
}

function showTaskCount() {
  $("no-tasks").hidden = $("tasks").childElementCount > 0;
  $("clear").hidden = finishedNodes().length === 0;
}

function finishedNodes() {
  return [...$("tasks").children].filter((node) => !handoff.tasks.has(node.dataset.id));
}

// -------------------------------------------------------------------------------------------------- the thousand mails

const BULK_NOTES = {
  submitted: "Handing it over …",
  accepted: "Accepted: waiting for a worker.",
  started: "A worker is sending.",
  retrying: "It did not go through, and will be tried again.",
};

function sendToAll() {
  if ($("bulk-send").getAttribute("aria-disabled") === "true") return;
  const to = Array.from({ length: 1000 }, (_, index) => `user${index + 1}@example.org`);
  const contents = "Good news, everyone: the slow things no longer keep you waiting.";
  const task = handoff.submit("send_mails", { from: EXAMPLES.from, to, subject: "Good news", contents });
  Object.assign(task, { done: 0, total: to.length });
  showTask(task);
  showBulk(task);
}

function showBulk(task) {
  $("bulk-cancel").onclick = () => task.cancel();
  task.on("event", () => showBulkState(task));
  task.on("end", () => showBulkState(task));
  showBulkState(task);
}

function showBulkState(task) {
  const done = (task.state === "succeeded" ? task.total : task.done) ?? 0;
  $("bulk").dataset.state = task.finished ? task.state : "running";
  $("bulk-progress").max = task.total ?? 1000;
  $("bulk-progress").value = done;
  setText($("bulk-done"), count.format(done));
  setText($("bulk-total"), count.format(task.total ?? 1000));
  setText($("bulk-note"), bulkNote(task, done));
  $("bulk-send").setAttribute("aria-disabled", String(!task.finished)); // not disabled: it would lose the focus
  if (task.finished && document.activeElement === $("bulk-cancel")) $("bulk-send").focus();
  $("bulk-cancel").hidden = task.finished;
  document.title = task.finished ? "Handoff" : `${Math.floor((100 * done) / (task.total ?? 1000))} % · Handoff`;
}

function bulkNote(task, done) {
  if (task.state === "succeeded") return `All sent in ${duration(task.created)}.`;
  if (task.finished) return `${task.state.replace("_", " ")} after ${count.format(done)}: ${task.error.message}`;
  return BULK_NOTES[task.state];
}

// -------------------------------------------------------------------------------------------------------------- the form

async function showCatalogue() {
  if (handoff.state !== "open" || asking.has("describe")) return;
  const chosen = $("function").value;
  catalogue = (await ask("describe"))?.functions ?? catalogue;
  const options = catalogue.map(({ name }) => Object.assign(element("option", "", name), { value: name }));
  $("function").replaceChildren(...options);
  const names = catalogue.map(({ name }) => name);
  if (names.includes(chosen)) $("function").value = chosen;
  else if (names.includes("countdown")) $("function").value = "countdown";
  if ($("function").value !== chosen) showFunction();
}

function showFunction() {
  const chosen = catalogue.find(({ name }) => name === $("function").value);
  $("function-doc").replaceChildren(...markCode(chosen?.doc ?? ""));
  $("arguments").value = chosen ? JSON.stringify(exampleArguments(chosen.params), null, 2) : "";
  $("parameters").replaceChildren(...(chosen?.params ?? []).flatMap(describeParameter));
  showProblem("");
}

/** Text with what stands in `backticks` as code. */
function markCode(text) {
  return text.split(/`([^`]+)`/).map((part, index) => (index % 2 ? element("code", "", part) : part));
}

function exampleArguments(params) {
  const named = params.filter(({ name }) => !name.startsWith("*"));
  if (params.length && !named.length) return params[0].name.startsWith("**") ? { hello: "world" } : ["hello"];
  return Object.fromEntries(named.map((param) => [param.name, exampleValue(param)]));
}

function exampleValue({ name, type, default: standard }) {
  if (standard !== undefined) return standard;
  const example = EXAMPLES[name] ?? BY_TYPE[type.match(/^\w+/)?.[0].toLowerCase()] ?? null;
  return type.startsWith("list") && typeof example === "string" ? [example] : example;
}

function describeParameter({ name, type, required, default: standard }) {
  const rest = required ? "required" : standard === undefined ? "optional" : `default ${asJson(standard, 60)}`;
  return [element("dt", "", name), element("dd", "", `${type}, ${rest}`)];
}

function showProblem(text) {
  $("arguments-error").textContent = text;
  $("arguments").toggleAttribute("aria-invalid", text !== "");
}

function readArguments() {
  const text = $("arguments").value.trim();
  const args = text === "" ? undefined : JSON.parse(text, keepDigits);
  if (args !== undefined && (args === null || typeof args !== "object")) throw new SyntaxError("an object or an array is needed");
  return args;
}

/** Refuse a whole number that JavaScript would round (where the browser tells how it was written). */
function keepDigits(key, value, written) {
  const rounded = typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(written?.source ?? "");
  if (rounded) throw new SyntaxError(`${written.source} has more digits than JavaScript keeps`);
  return value;
}

function handOff(event) {
  event.preventDefault();
  try {
    const task = handoff.submit($("function").value, readArguments());
    showProblem("");
    showTask(task).node.scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof HandoffError)) throw error;
    showProblem(`These are no arguments: ${error.message}`);
    $("arguments").focus();
  }
}

// ------------------------------------------------------------------------------------------------------------- beginning

const restored = [...handoff.tasks.values()];
restored.forEach(showTask);
restored.filter((task) => task.function === "send_mails").slice(-1).forEach(showBulk);
handoff.on("state", showConnection);
handoff.on("state", showCatalogue).on("state", showRoundTrip);
$("try-now").addEventListener("click", () => (handoff.state === "closed" ? handoff.connect() : handoff.wake()));
$("bulk-send").addEventListener("click", sendToAll);
$("function").addEventListener("change", showFunction);
$("form").addEventListener("submit", handOff);
$("arguments").addEventListener("keydown", ({ ctrlKey, metaKey, key }) => {
  if ((ctrlKey || metaKey) && key === "Enter") $("form").requestSubmit();
});
$("clear").addEventListener("click", () => {
  finishedNodes().forEach((node) => node.remove());
  showTaskCount();
});
setInterval(showRoundTrip, PING_EVERY);
setInterval(() => running.forEach((view) => view.show()), 500);
