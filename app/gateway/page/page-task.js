/* page-task.js: how the page at / shows one task: its card, with state, progress, outcome and the log of its events. All as text. */

const MOST_LOG_LINES = 200;
const MOST_TEXT = 20000; // characters of a result that are shown

export const count = new Intl.NumberFormat("en");

/** The time since a moment in ms since 1970. */
export function duration(since) {
  const seconds = (Date.now() - since) / 1000;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}

function shorten(text, limit) {
  return text.length > limit ? `${text.slice(0, limit)} … ${count.format(text.length - limit)} characters more` : text;
}

export function asJson(value, limit, indent = 0) {
  return shorten(JSON.stringify(value, null, indent) ?? "", limit);
}

export function element(name, className, text) {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

/** Write only what is new: a live region says again what is written again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** What an event says beside its name. */
function describeEvent({ event, position, worker, attempt, done, total, note, value, after, error, result }) {
  if (event === "accepted") return position ? `${position} before it` : "";
  if (event === "started") return [worker, attempt > 1 && `attempt ${attempt}`].filter(Boolean).join(", ");
  if (event === "progress") return [amount(done, total), note].filter(Boolean).join(", ");
  if (event === "output") return asJson(value, 200);
  if (event === "retrying") return `in ${after} s: ${error?.message ?? ""}`;
  return error ? `${error.code}: ${error.message}` : asJson(result, 200);
}

function amount(done, total) {
  return total ? `${count.format(done)} of ${count.format(total)}` : count.format(done);
}

/** The card of one task, and what is written into it while events come. */
export class TaskView {
  constructor(task, template) {
    this.task = task;
    this.node = template.content.cloneNode(true).firstElementChild;
    this.node.dataset.id = task.id;
    this.part("function").textContent = task.function ?? "task";
    this.part("id").textContent = task.id;
    this.part("cancel").addEventListener("click", () => task.cancel());
    this.part("cancel").setAttribute("aria-label", `Cancel ${task.function}`);
    if (task.seq > 0) this.log("resumed", `after event ${task.seq}`);
    task.on("event", (event) => this.log(event.event, describeEvent(event)));
    task.on("event", () => this.show());
    task.on("refused", (error) => this.log("refused", `${error.code}: ${error.message}`));
    task.on("end", () => this.end());
    this.show();
  }

  part(name) {
    return this.node.querySelector(`.${name}`);
  }

  show() {
    const { task } = this;
    this.node.dataset.state = task.state;
    setText(this.part("state"), task.state.replace("_", " "));
    if (task.finished && document.activeElement === this.part("cancel")) this.node.querySelector("summary").focus();
    this.part("cancel").hidden = task.finished;
    setText(this.part("time"), duration(task.created));
    this.part("bar").hidden = task.done === null;
    if (task.done !== null) this.showProgress(task);
  }

  showProgress({ done, total, note, finished }) {
    const bar = this.node.querySelector("progress");
    bar.setAttribute("aria-label", `Progress of ${this.task.function}`);
    bar.max = total ?? 1;
    if (total !== null) bar.value = done;
    else if (finished) bar.value = 1;
    else bar.removeAttribute("value");
    this.part("amount").textContent = describeEvent({ event: "progress", done, total, note });
  }

  log(name, text) {
    const list = this.part("log");
    if (name === "progress" && list.lastElementChild?.dataset.event === name) list.lastElementChild.remove();
    const line = element("li", "", "");
    line.dataset.event = name;
    line.append(element("span", "when", `+${duration(this.task.created)}`), element("span", "what", name), element("span", "more", text));
    list.append(line);
    if (list.childElementCount > MOST_LOG_LINES) list.firstElementChild.remove();
  }

  end() {
    const { task } = this;
    const outcome = this.part("outcome");
    this.show();
    outcome.hidden = false;
    outcome.setAttribute("aria-label", `Outcome of ${task.function}`);
    outcome.textContent = task.error ? `${task.error.code}: ${task.error.message}` : asJson(task.value, MOST_TEXT, 2);
  }
}
