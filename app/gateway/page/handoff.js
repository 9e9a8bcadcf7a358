/* handoff.js: hand slow tasks to a Handoff gateway from a page, and hear what becomes of them, whatever the connection does.
 * An ES module without a build step; handoff-connection.js and handoff-task.js lie beside it. In Node, give { WebSocket } where there is none.
 *
 *   import { Handoff } from "/handoff.js";
 *   const handoff = new Handoff();                               // this page's own gateway; new Handoff("wss://host/ws") for another
 *   const task = handoff.submit("send_mails", { from, to, subject, contents });
 *   task.on("progress", ({ done, total }) => { bar.max = total; bar.value = done; });
 *   const sent = await task.result;                              // or a HandoffError with its `code`
 *
 * Handoff   submit(function, args, options) → Task   options: id, events, priority, delay, on_disconnect (as on the wire), idempotent
 *           attach(id, afterSeq = 0) → Task          a task known by its id: what was said after `afterSeq`, then live
 *           describe(), list(limit), ping()          promises: the catalogue, one's own tasks, the round trip in ms
 *           search({limit, before, state, function, id, args}) → {tasks, before}   a promise: those of one's own tasks
 *           follow(id, hear) → stop                  all that was said of any task of one's own, then live
 *           watch(true), on("watch", seen)           figures, workers and changes of one's own tasks, as app/gateway/watch.py has them
 *           close(), connect(), wake()               leave; come back; try at once instead of when the back-off says
 *           token = "…", on("admitted", {subject})   who we are, where the gateway asks (also an option); then connect(), after a
 *                                                    "closed" with the code 4401
 *           tasks, state, url                        a Map of the unfinished; "connecting", "open", "waiting" or "closed"
 *           on("state", {state, code, reason, delay}), on("refused", error), on("stray", message), on("unsaved", error)
 * Task      result, cancel(), on(name, listener), off(name, listener)
 *           id, function, state, seq, attempt, done, total, note, value, error, finished, created (ms since 1970)
 *           on("accepted" … "interrupted", event): the events of the wire by name, each once and in order; on("event", event): all of
 *           them; on("refused", error): nothing was accepted, or a cancel came to nothing; on("end", task): over, exactly once.
 *
 * When the connection is back, tasks that the gateway has not answered are sent again under their ids, which never runs them twice; the
 * others attach after the last `seq` heard. With the option `storage` (a sessionStorage or localStorage) a reload does the same: look
 * through `tasks` right after the constructor. A task that was heard of and that the gateway no longer knows may have run: it ends as
 * `unknown_task`, and is sent again only where it was submitted as `idempotent`. Whole numbers past 2 ** 53 lose digits in JavaScript.
 */

import { Connection, CONNECTION_DEFAULTS, Emitter, HandoffError, parse, write } from "./handoff-connection.js";
import { Task } from "./handoff-task.js";

export { HandoffError };

const PASSING = new Set(["busy", "rate_limited", "unavailable", "internal"]); // an attach that is refused so is worth another try
const ON_WIRE = ["events", "priority", "delay", "on_disconnect"];
const SAVED = ["id", "function", "state", "seq", "attempt", "done", "total", "note", "created", "idempotent", "_gaps", "_cancelling"];
const TOO_BIG = 1009;
const DEFAULTS = {
  ...CONNECTION_DEFAULTS,
  storage: null, // where unfinished tasks are kept for the next page of this gateway
  gap: 2000, //     ms to wait for an event that is missing before another
};

export class Handoff extends Emitter {
  #connection;
  #options;
  #watching = false;
  #followers = new Set();

  constructor(url = ownGateway(), options = {}) {
    super();
    this.url = String(url);
    this.tasks = new Map();
    this.#options = { ...DEFAULTS, ...options };
    this.#connection = new Connection(this.url, this.#options);
    this.#connection.on("open", () => this.#opened());
    this.#connection.on("message", (message) => this.#heard(message));
    this.#connection.on("admitted", (who) => this._emit("admitted", who));
    this.#connection.on("stray", (message) => this._emit("stray", message));
    this.#connection.on("state", (change) => this.#changed(change));
    this.#restore();
    this.connect();
  }

  get state() {
    return this.#connection.state;
  }

  set token(token) {
    this.#connection.token = token;
  }

  submit(name, args = undefined, { id = newId(), idempotent = false, ...options } = {}) {
    const frame = write({ id, function: name, args, ...pick(options, ON_WIRE) });
    const known = this.tasks.get(id);
    if (known && (!known._frame || content(known._frame) === content(frame))) return known;
    if (known) throw new HandoffError({ code: "id_conflict", message: `${id} is an unfinished task with other content` }, id);
    return this.#begin({ id, function: name, idempotent, _frame: frame, _gaps: options.events === "final" });
  }

  attach(id, afterSeq = 0) {
    return this.tasks.get(id) ?? this.#begin({ id, seq: afterSeq });
  }

  /** Everything that was said of a task, from the first event, then live: `hear(event)` each once, or `hear(null, error)`. Gives what ends it. */
  follow(id, hear) {
    const follower = { id, hear, seq: 0 };
    this.#followers.add(follower);
    this.#connection.send({ id, attach: 0 });
    return () => this.#followers.delete(follower);
  }

  describe() {
    return this.#connection.ask("describe", true);
  }

  list(limit = 100) {
    return this.#connection.ask("list", { limit });
  }

  /** One's own tasks, newest first: those that `wanted` describes, and where the next search goes on (undefined: there are no more). */
  search(wanted = {}) {
    return this.#connection.asked("list", wanted).then(({ list, before }) => ({ tasks: list, before }));
  }

  /** Have what the gateway does told as "watch" events, also on every connection to come; `false` ends it. */
  watch(wanted = true) {
    this.#watching = wanted;
    this.#connection.send({ watch: wanted });
  }

  ping() {
    return this.#connection.ping();
  }

  connect() {
    this.#connection.connect();
  }

  /** Leave. Unfinished tasks go on at the gateway, and are heard of again after connect(). */
  close() {
    this.#connection.close();
  }

  wake() {
    this.#connection.wake();
  }

  #opened() {
    if (this.#watching) this.#connection.send({ watch: true });
    for (const task of [...this.tasks.values()]) this.#present(task);
    for (const { id, seq } of this.#followers) this.#connection.send({ id, attach: seq });
  }

  #changed(change) {
    const lost = change.state === "waiting" || change.state === "closed";
    const tooBig = change.code === TOO_BIG ? this.#largestUnanswered() : undefined;
    if (lost) for (const task of this.tasks.values()) this.#settle(task)._awaits = null;
    if (tooBig) this.#refuse(tooBig, new HandoffError({ code: "too_large", message: change.reason }, tooBig.id));
    this._emit("state", change);
  }

  /** What a close for a message over the limit was about: sent again, it would close every connection to come. */
  #largestUnanswered() {
    const unanswered = [...this.tasks.values()].filter((task) => task._awaits === "submit");
    return unanswered.sort((a, b) => b._frame.length - a._frame.length)[0];
  }

  #heard(message) {
    if (typeof message.event === "string") this.#event(message);
    else if (message.error) this.#refused(message);
    else if (message.watch !== undefined) this.#watched(message.watch);
    else this._emit("stray", message);
  }

  #watched(seen) {
    if (seen && this.#watching) this._emit("watch", seen);
  }

  #begin(fields) {
    const task = new Task(this, fields);
    this.tasks.set(task.id, task);
    this.#save(task);
    this.#present(task);
    return task;
  }

  /** Say on this connection what is wanted of the task: nothing while it is not open, since opening says it of every task. */
  #present(task) {
    if (this.state !== "open" || task.finished) return;
    task._awaits = task._frame && task.seq === 0 ? "submit" : "attach";
    this.#connection.send(task._awaits === "submit" ? task._frame : { id: task.id, attach: task.seq });
    if (task._cancelling) this.#connection.send({ id: task.id, cancel: true });
  }

  /** Ask for any of one's own tasks to be cancelled. */
  cancel(id) {
    const task = this.tasks.get(id);
    if (task) this._cancel(task);
    else this.#connection.send({ id, cancel: true });
  }

  _cancel(task) {
    task._cancelling = true;
    this.#save(task);
    this.#connection.send({ id: task.id, cancel: true });
  }

  #event(event) {
    for (const follower of this.#followers) {
      if (follower.id === event.id && event.seq > follower.seq) {
        follower.seq = event.seq;
        follower.hear(event);
      }
    }
    const task = this.tasks.get(event.id);
    if (!task) return; // over, and said so: the rest of a replay
    task._awaits = null;
    if (event.seq <= task.seq) return;
    if (event.seq > task.seq + 1 && !task._gaps) this.#missing(task);
    else this.#deliver(task, event);
  }

  /** Have everything after the gap said again, in order; where that does not fill it, nothing will. */
  #missing(task) {
    if (task._timer) return;
    this.#again(task, this.#options.gap, () => { task._gaps = true; });
    this.#connection.send({ id: task.id, attach: task.seq });
  }

  #again(task, delay, first = () => {}) {
    this.#settle(task)._timer = setTimeout(() => {
      task._timer = null;
      first();
      this.#present(task);
    }, delay);
  }

  #deliver(task, event) {
    this.#settle(task);
    task._take(event);
    if (task.finished) this.tasks.delete(task.id);
    this.#save(task);
    task._emit(event.event, event);
    task._emit("event", event);
    if (task.finished) task._emit("end", task);
  }

  #settle(task) {
    clearTimeout(task._timer);
    return Object.assign(task, { _timer: null });
  }

  #refused({ id, error }) {
    const problem = new HandoffError(error, id);
    for (const follower of this.#followers) if (follower.id === id) follower.hear(null, problem);
    const task = this.tasks.get(id);
    if (!task || task._awaits === null) (task ?? this)._emit("refused", problem);
    else if (problem.code === "rate_limited") this.#again(task, Math.max(500, 1000 * (problem.details.retry_after ?? 1)) * (1 + Math.random()));
    else if (task._awaits === "submit") this.#refuse(task, problem);
    else if (PASSING.has(problem.code)) this.#again(task, 1000 * (problem.details.retry_after ?? 1));
    else if (problem.code === "unknown_task" && task._frame && task.idempotent) {
      this.#present(Object.assign(task, { state: "submitted", seq: 0 }));
    } else this.#refuse(task, problem);
  }

  #refuse(task, problem) {
    this.#settle(task);
    Object.assign(task, { state: "refused", error: problem });
    this.tasks.delete(task.id);
    this.#save(task);
    task._emit("refused", problem);
    task._emit("end", task);
  }

  /** One key a task, so that pages with one localStorage do not overwrite each other's. */
  #key(id) {
    return `handoff ${this.url} ${id}`;
  }

  #save(task) {
    const { storage } = this.#options;
    if (!storage) return;
    const unanswered = task.seq === 0 || task.idempotent; // it may have to be sent again
    try {
      if (task.finished) storage.removeItem(this.#key(task.id));
      else storage.setItem(this.#key(task.id), JSON.stringify(pick(task, unanswered ? [...SAVED, "_frame"] : SAVED)));
    } catch (error) {
      this._emit("unsaved", error); // over the quota: a reload will not find this one, and it goes on
    }
  }

  #restore() {
    const { storage } = this.#options;
    const keys = Array.from({ length: storage?.length ?? 0 }, (_, index) => storage.key(index));
    const records = keys.filter((key) => key.startsWith(this.#key(""))).map((key) => parse(storage.getItem(key)) ?? {});
    const whole = records.filter(({ id }) => id).sort((a, b) => a.created - b.created);
    for (const record of whole) this.tasks.set(record.id, new Task(this, record));
  }
}

const pick = (from, names) => Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));
const content = (frame) => JSON.stringify(pick(JSON.parse(frame), ["function", "args"]));

/** The gateway that this page came from. */
function ownGateway() {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
}

/** A random UUID, also where the page is no secure context and has no crypto.randomUUID. */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}
