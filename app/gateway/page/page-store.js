/* page-store.js: the tasks that the page knows, as `list` and `watch` tell of them: those that are not over, and a history that is read as far
 * as it is looked at. How they are shown is not known here. */

import { FINAL } from "./handoff-task.js";
import { time } from "./page-dom.js";

const PAGE = 100;
const MOST_KEPT = 20000;
const FAILED = ["failed", "timed_out", "interrupted"];
const STATES = { all: [...FINAL], succeeded: ["succeeded"], failed: FAILED, cancelled: ["cancelled"] };
const RUNNING = new Set(["running", "dispatched"]);

export class Store {
  #handoff;
  #changed;
  #rows = new Map();
  #unsure = new Set(); // ids of unfinished tasks that the gateway was to tell of again, and has not yet
  #cursor = Infinity; //  history is known down to this order; 0: there is no more
  #loading = null;
  #filter = { state: "all", function: "", id: "" };

  constructor(handoff, changed) {
    this.#handoff = handoff;
    this.#changed = changed;
    handoff.on("watch", (seen) => this.#take(seen));
  }

  get(id) {
    return this.#rows.get(id);
  }

  /** Those that are not over: what runs, the oldest first, then what waits, by its place. */
  unfinished() {
    const rows = [...this.#rows.values()].filter(({ state }) => !FINAL.has(state));
    const rank = ({ state, position, due_at: due }) => (RUNNING.has(state) ? -1 : position ?? (due ? 1e9 + due : 1e8));
    return rows.sort((a, b) => rank(a) - rank(b) || a.order - b.order);
  }

  /** Those that are over and match the filter, newest first, as far as they were read. */
  history() {
    const { state, function: name, id } = this.#filter;
    const states = new Set(STATES[state]);
    const fits = (row) => states.has(row.state) && row.order >= this.#cursor && (!name || row.function === name) && row.id.startsWith(id);
    return [...this.#rows.values()].filter(fits).sort((a, b) => b.order - a.order);
  }

  get complete() {
    return this.#cursor === 0;
  }

  filter(filter) {
    this.#filter = filter;
    this.reload();
  }

  /** Read the history anew, from its newest task. */
  reload() {
    this.#cursor = Infinity;
    this.#loading = null;
    this.more();
  }

  /** Read on, where there is more and nothing is being read. */
  async more() {
    if (this.#loading || this.complete) return;
    const loading = this.#search();
    this.#loading = loading;
    try {
      const { tasks, before } = await loading;
      if (this.#loading !== loading) return; // the filter is another by now
      for (const task of tasks) this.#put(task);
      this.#cursor = before ?? 0;
      this.#loading = null;
      if (!tasks.length && before) this.more(); // a stretch with none of them
    } catch (error) {
      if (this.#loading === loading) this.#loading = null;
      if (error.name !== "HandoffError") throw error;
    }
    this.#changed();
  }

  #search() {
    const { state, function: name, id } = this.#filter;
    const wanted = { limit: PAGE, state: STATES[state], ...(name && { function: name }), ...(id && { id }) };
    return this.#handoff.search(Number.isFinite(this.#cursor) ? { ...wanted, before: this.#cursor } : wanted);
  }

  #take({ at, columns, again, tasks = [], second }) {
    time.heard(at);
    if (columns || again) {
      this.#unsure = new Set(this.unfinished().map(({ id }) => id));
      this.reload();
    }
    for (const task of tasks) {
      this.#unsure.delete(task.id);
      this.#put(task);
    }
    if (second !== undefined && this.#unsure.size && !tasks.length) this.#forgetUnsure();
    if (tasks.length || columns || again) this.#changed();
  }

  /** All were told; what was not is over, and is found in the history. */
  #forgetUnsure() {
    for (const id of this.#unsure) this.#rows.delete(id);
    this.#unsure.clear();
    this.#changed();
  }

  #put(task) {
    const known = this.#rows.get(task.id);
    if (known && known.seq > task.seq) return;
    this.#rows.set(task.id, { progress: known?.progress, started_at: known?.started_at, ...task });
    if (this.#rows.size > MOST_KEPT) this.#drop();
  }

  #drop() {
    for (const [id, { state }] of this.#rows) {
      if (FINAL.has(state)) {
        this.#rows.delete(id);
        return;
      }
    }
  }
}
