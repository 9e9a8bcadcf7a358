/* page-detail.js: one task in full: where it stands, its arguments, all that was said of it, its result or its error with the stack; cancel,
 * and run again. A dialog, so that Escape closes it and the focus goes back to where it was. */

import { FINAL } from "./handoff-task.js";
import { $, asJson, clock, count, element, onceAFrame, seconds, setText, stateName, time } from "./page-dom.js";
import { amount, describeRow } from "./page-row.js";

const MOST_LINES = 500;
const MOST_TEXT = 20000; // characters of a result that are shown

export class Detail {
  #handoff;
  #store;
  #id = null;
  #args = undefined;
  #events = [];
  #stop = () => {};
  #shown = 0;
  #draw = onceAFrame(() => this.#show());

  constructor(handoff, store) {
    this.#handoff = handoff;
    this.#store = store;
    $("detail").addEventListener("close", () => this.#closed());
    $("detail").addEventListener("click", ({ target }) => target === $("detail") && $("detail").close());
    $("detail-close").addEventListener("click", () => $("detail").close());
    $("detail-cancel").addEventListener("click", () => this.#handoff.cancel(this.#id));
    $("detail-again").addEventListener("click", () => this.#again());
  }

  open(id) {
    this.#stop();
    this.#id = id;
    this.#args = undefined;
    this.#events = [];
    this.#shown = 0;
    $("detail-log").replaceChildren();
    $("detail-note").textContent = "";
    this.#stop = this.#handoff.follow(id, (event, error) => this.#heard(event, error));
    this.#readArguments(id);
    this.#show();
    if (!$("detail").open) $("detail").showModal();
  }

  /** Something of a task has changed; where it is this one, it is drawn again. */
  refresh() {
    if (this.#id) this.#draw();
  }

  #heard(event, error) {
    if (error) $("detail-note").textContent = error.message;
    else this.#events.push(event);
    this.#draw();
  }

  async #readArguments(id) {
    try {
      const order = this.#store.get(id)?.order;
      let wanted = { id, args: true, ...(order && { before: order + 1 }) };
      while (wanted) {
        const { tasks, before } = await this.#handoff.search(wanted);
        if (this.#id !== id) return;
        this.#args = tasks.find((task) => task.id === id);
        wanted = this.#args || !before ? null : { ...wanted, before }; // the ids of others may begin so
      }
      this.#draw();
    } catch (error) {
      if (error.name !== "HandoffError") throw error;
      $("detail-note").textContent = error.message;
    }
  }

  async #again() {
    const { function: name, args } = this.#args;
    const task = this.#handoff.submit(name, args);
    this.open(task.id);
    $("announcer").textContent = `${name} handed off again`;
  }

  #closed() {
    this.#stop();
    this.#id = null;
  }

  #show() {
    if (!this.#id) return;
    const last = this.#events.at(-1);
    const final = this.#events.find(({ event }) => FINAL.has(event));
    const row = this.#store.get(this.#id) ?? this.#args;
    const state = final?.event ?? row?.state ?? "submitted";
    $("detail").dataset.state = state;
    setText($("detail-title"), row?.function ?? "task");
    setText($("detail-state"), stateName(state));
    setText($("detail-id"), this.#id);
    setText($("detail-facts"), row ? facts(row, last) : "");
    this.#showProgress(row, state);
    this.#showOutcome(final);
    setText($("detail-arguments"), this.#args ? asJson(this.#args.args, MOST_TEXT, 2) : "…");
    const cancel = $("detail-cancel");
    if (FINAL.has(state) && document.activeElement === cancel) $("detail-close").focus();
    cancel.hidden = FINAL.has(state);
    $("detail-again").hidden = !this.#args;
    this.#showLog();
  }

  #showProgress(row, state) {
    const progress = this.#events.findLast(({ event }) => event === "progress") ?? row?.progress;
    const bar = $("detail-progress");
    $("detail-bar").hidden = !progress || FINAL.has(state);
    if (!progress) return;
    if (progress.total) Object.assign(bar, { max: progress.total, value: progress.done });
    else bar.removeAttribute("value");
    setText($("detail-amount"), [amount(progress), progress.note].filter(Boolean).join(" · "));
  }

  #showOutcome(final) {
    $("detail-outcome").hidden = !final;
    if (!final) return;
    const { code, message, stack, traceback, ...more } = final.error ?? {};
    setText($("detail-outcome-title"), final.error ? "Error" : "Result");
    const rest = Object.keys(more).length ? `\n${asJson(more, MOST_TEXT, 2)}` : "";
    setText($("detail-result"), final.error ? `${code}: ${message}${rest}` : asJson(final.result, MOST_TEXT, 2));
    const trace = [traceback, stack].filter(Boolean).map((part) => (Array.isArray(part) ? part.join("\n") : String(part))).join("\n");
    $("detail-trace").hidden = !trace;
    setText($("detail-stack"), trace);
  }

  #showLog() {
    const begun = this.#store.get(this.#id)?.accepted_at ?? this.#args?.accepted_at ?? time.now();
    const fresh = this.#events.slice(this.#shown).slice(-MOST_LINES);
    this.#shown = this.#events.length;
    const log = $("detail-log");
    if (fresh.length) log.append(...fresh.map((event) => line(event, begun)));
    while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
    setText($("detail-count"), count.format(this.#events.length));
  }
}

function facts(row, last) {
  const { accepted_at: accepted, started_at: started, finished_at: finished, attempt } = row;
  const parts = [`accepted ${clock.format(accepted * 1000)}`];
  if (finished) parts.push(`took ${seconds(Math.max(0, finished - accepted))}`);
  else if (started && row.state !== "queued") parts.push(`runs since ${seconds(Math.max(0, time.now() - started))}`);
  else parts.push(describeRow(row));
  const tries = last?.attempt ?? attempt;
  if (tries > 1) parts.push(`attempt ${tries}`);
  return parts.join(" · ");
}

function line(event, begun) {
  const node = element("li");
  node.dataset.event = event.event;
  node.append(element("span", "seq", String(event.seq)), element("span", "name", stateName(event.event)), element("span", "more", describe(event, begun)));
  return node;
}

/** What an event says beside its name. */
function describe({ event, position, worker, attempt, done, total, note, value, after, error, result }) {
  if (event === "accepted") return position ? `${count.format(position)} before it` : "";
  if (event === "started") return [worker, attempt > 1 && `attempt ${attempt}`].filter(Boolean).join(", ");
  if (event === "progress") return [amount({ done, total }), note].filter(Boolean).join(" · ");
  if (event === "output") return asJson(value, 200);
  if (event === "retrying") return `in ${seconds(after)}: ${error?.message ?? ""}`;
  return error ? `${error.code}: ${error.message}` : asJson(result, 200);
}
