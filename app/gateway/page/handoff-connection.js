/* handoff-connection.js: one WebSocket that comes back. It opens, notices when nobody is there any more, waits (longer each time, with
 * jitter) and opens again. It carries JSON objects either way, and requests with one answer (describe, list, ping); it knows nothing of
 * tasks: handoff.js does, and is what pages import.
 *
 * It emits "state" ({state, code, reason, delay}), "open", "message" (an object that answers no request), "stray" (what is no object).
 */

const POLICY = 1008; // and the codes of applications: the same would be said again
const RESTARTING = 1012; // another process takes over: it is there in a moment, however often that has happened lately
const TRY_LATER = 1013;
const GONE = 1006;

export const CONNECTION_DEFAULTS = {
  WebSocket: globalThis.WebSocket,
  firstDelay: 250, // ms before the first new attempt (half of it to all of it, at random), doubled each time, up to
  maxDelay: 15000,
  settled: 5000, //   ms that a connection has to last for the next one to start at firstDelay again
  quiet: 15000, //    ms of silence before a ping asks whether anybody is there
  patience: 8000, //  ms that the answer, or the opening of a connection, may take
};

const now = () => performance.now();

export class HandoffError extends Error {
  /** What the gateway or the task said: `code` as on the wire, in `details` what stood beside it (retry_after, parameter, …). */
  constructor({ code, message, ...details }, id = undefined) {
    super(message || code);
    Object.assign(this, { name: "HandoffError", code, details, id });
  }
}

export class Emitter {
  #listeners = new Map();

  on(name, listener) {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
    return this;
  }

  off(name, listener) {
    this.#listeners.set(name, (this.#listeners.get(name) ?? []).filter((each) => each !== listener));
    return this;
  }

  _emit(name, ...values) {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        listener(...values);
      } catch (error) {
        setTimeout(() => { throw error; }); // the console hears of it, and the listeners after this one still hear the event
      }
    }
  }
}

export class Connection extends Emitter {
  #options;
  #socket = null;
  #timer = null; //    the next look at an open connection, the end of patience, or the next attempt
  #failures = 0;
  #openedAt = null;
  #heardAt = 0;
  #probing = false;
  #pings = 0;
  #requests = []; //   one is out at a time, so that a refusal without an id is that of the first

  constructor(url, options) {
    super();
    this.#options = options;
    this.url = url;
    this.state = "closed";
    globalThis.addEventListener?.("online", () => this.wake());
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || this.wake());
  }

  connect() {
    if (this.#socket) return;
    const socket = new this.#options.WebSocket(this.url);
    const ours = (act) => (event) => { if (socket === this.#socket) act(event); }; // one given up may still have something to say
    this.#socket = socket;
    socket.onopen = ours(() => this.#opened());
    socket.onmessage = ours(({ data }) => this.#heard(data));
    socket.onclose = ours(({ code, reason }) => this.#lost(code, reason));
    socket.onerror = () => {}; // says nothing that the close after it does not say
    this.#in(this.#options.patience, () => this.#giveUp("it did not open in time"));
    this.#become("connecting");
  }

  close() {
    const socket = this.#socket;
    this.#stop(1000, "closed by this side");
    socket?.close(1000);
  }

  /** Try at once: the network is back, or somebody looks at the page again. */
  wake() {
    if (this.state === "waiting") this.connect();
    else if (this.state === "open" && !this.#probing) this.#probe();
  }

  /** Send an object, or JSON already written. Dropped while not open: opening is when everything unanswered is said again. */
  send(message) {
    if (this.state === "open") this.#socket.send(typeof message === "string" ? message : write(message));
  }

  /** What the gateway answers to {[key]: value}; sent again on the next connection where this one ends before the answer. */
  ask(key, value) {
    return this.asked(key, value).then((message) => message[key]);
  }

  /** The same, with all that stands beside it in the answer. */
  asked(key, value) {
    return this.#request({ [key]: value }, ({ message }) => (message[key] === undefined ? undefined : message));
  }

  /** The ms that a message takes there and back. */
  ping() {
    const ping = ++this.#pings;
    return this.#request({ ping }, ({ message, at }) => (message.pong === ping ? now() - at : undefined));
  }

  #request(message, answer) {
    return new Promise((resolve, reject) => {
      this.#requests.push({ message, answer, resolve, reject, at: 0 });
      if (this.#requests.length === 1) this.#askFirst();
    });
  }

  #askFirst() {
    const [request] = this.#requests;
    if (!request) return;
    request.at = now();
    this.send(request.message);
  }

  /** Whether the message was about a request: its answer, its refusal (without an id), or the pong of a probe. */
  #answered(message) {
    const [request] = this.#requests;
    const answer = request?.answer({ message, at: request.at });
    const refused = request && message.error && message.id == null;
    if (answer === undefined && !refused) return message.pong !== undefined;
    this.#requests.shift();
    if (refused) request.reject(new HandoffError(message.error));
    else request.resolve(answer);
    this.#askFirst();
    return true;
  }

  #opened() {
    this.#openedAt = this.#heardAt = now();
    this.#look();
    this.#become("open");
    this._emit("open");
    this.#askFirst();
  }

  #heard(data) {
    this.#heardAt = now();
    if (this.#probing) {
      this.#probing = false;
      this.#look();
    }
    const message = parse(data);
    if (!message) this._emit("stray", data);
    else if (!this.#answered(message)) this._emit("message", message);
  }

  #look() {
    const left = this.#options.quiet - (now() - this.#heardAt);
    if (left > 0) this.#in(left, () => this.#look());
    else this.#probe();
  }

  #probe() {
    this.#probing = true;
    this.send({ ping: ++this.#pings });
    this.#in(this.#options.patience, () => this.#giveUp("it has gone silent"));
  }

  #giveUp(reason) {
    const socket = this.#socket;
    this.#lost(GONE, reason); // now, not when it says that it closed: where the peer is gone, closing takes minutes
    socket.close();
  }

  #lost(code, reason) {
    if (code === POLICY || code >= 4000) return this.#stop(code, reason);
    const { settled, firstDelay, maxDelay } = this.#options;
    if (code === RESTARTING || (this.#openedAt !== null && now() - this.#openedAt >= settled)) this.#failures = 0;
    if (code === TRY_LATER) this.#failures = Math.max(this.#failures, 2);
    const delay = Math.min(maxDelay, firstDelay * 2 ** this.#failures++) * (0.5 + Math.random() / 2);
    this.#forget();
    this.#in(delay, () => this.connect());
    this.#become("waiting", { code, reason, delay });
  }

  #stop(code, reason) {
    this.#forget();
    clearTimeout(this.#timer);
    const error = new HandoffError({ code: "unavailable", message: reason || `the connection is closed (${code})` });
    for (const request of this.#requests.splice(0)) request.reject(error);
    this.#become("closed", { code, reason });
  }

  #forget() {
    this.#socket = null;
    this.#openedAt = null;
    this.#probing = false;
  }

  #become(state, more = {}) {
    this.state = state;
    this._emit("state", { state, ...more });
  }

  #in(delay, act) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, delay);
  }
}

/** The JSON object in a text, undefined where there is none. */
export function parse(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : undefined;
  } catch {
    return undefined;
  }
}

/** JSON text. JSON has no NaN and no infinities: an error, where JSON.stringify would make them null without a word. */
export function write(value) {
  return JSON.stringify(value, (key, each) => {
    if (typeof each === "number" && !Number.isFinite(each)) {
      throw new HandoffError({ code: "bad_arguments", message: `${key}: ${each} cannot be said in JSON` });
    }
    return each;
  });
}
