/* handoff-task.js: one task as a page has it, and what the events of the wire make of it. What is said to the gateway of it is in handoff.js. */

import { Emitter, HandoffError } from "./handoff-connection.js";

export const FINAL = new Set(["succeeded", "failed", "timed_out", "cancelled", "interrupted"]);

export class Task extends Emitter {
  #handoff;
  #result;

  constructor(handoff, fields) {
    super();
    this.#handoff = handoff;
    Object.assign(this, { function: null, state: "submitted", seq: 0, attempt: 0, done: null, total: null, note: null });
    Object.assign(this, { value: undefined, error: null, created: Date.now(), idempotent: false });
    this._frame = null; //         the submit as it goes out; null where it is known by its id alone
    this._awaits = null; //        what was asked on this connection and not answered: "submit" or "attach"
    this._gaps = false; //         whether seq may jump: always where only the final event was asked for
    this._cancelling = false;
    this._timer = null;
    Object.assign(this, fields);
  }

  get finished() {
    return FINAL.has(this.state) || this.state === "refused";
  }

  /** A promise of what the task returns. Made when first asked for: a task that is only listened to leaves no rejection unhandled. */
  get result() {
    this.#result ??= new Promise((resolve, reject) => {
      const settle = () => (this.error ? reject(this.error) : resolve(this.value));
      if (this.finished) settle();
      else this.on("end", settle);
    });
    return this.#result;
  }

  /** Ask for it to be cancelled; whether it was is said by its final event. */
  cancel() {
    if (!this.finished) this.#handoff._cancel(this);
  }

  _take(event) {
    Object.assign(this, { seq: event.seq, attempt: event.attempt ?? this.attempt });
    if (event.event === "progress") {
      Object.assign(this, { done: event.done, total: event.total ?? null, note: event.note ?? null });
    } else if (event.event !== "output") this.state = event.event;
    if (event.event === "succeeded") this.value = event.result;
    else if (FINAL.has(event.event)) this.error = new HandoffError({ code: event.event, ...event.error }, this.id);
  }
}
