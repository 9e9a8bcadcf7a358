/* scripted.js: a WebSocket server that does what a test tells it to, to try handoff.js against connections that drop, delay, repeat and
 * refuse. Not a gateway: it knows no rule of its own but to answer pings while it is not deaf. */

import { webcrypto } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket, WebSocketServer } from "ws";
import { Handoff } from "../../app/gateway/page/handoff.js";

globalThis.crypto ??= webcrypto;

/** The value of `probe()` once it is neither undefined nor false; an error after `timeout` ms. */
export async function until(probe, what, timeout = 5000) {
  for (const end = Date.now() + timeout; Date.now() < end; await sleep(2)) {
    const value = probe();
    if (value !== undefined && value !== false) return value;
  }
  throw new Error(`not within ${timeout} ms: ${what}`);
}

/** One connection, as the server sees it. */
class Peer {
  received = []; // everything but pings, parsed
  pings = 0;
  deaf = false;
  over = false;

  constructor(socket) {
    this.socket = socket;
    socket.on("message", (data) => this.#take(JSON.parse(data)));
    socket.on("close", () => { this.over = true; });
  }

  #take(message) {
    if (message.ping === undefined) return this.received.push(message);
    this.pings += 1;
    if (!this.deaf) this.say({ pong: message.ping });
  }

  heard(count) {
    return until(() => this.received.length >= count && this.received, `message ${count} of ${JSON.stringify(this.received)}`);
  }

  say(...messages) {
    for (const message of messages) this.socket.send(JSON.stringify(message));
  }

  drop() {
    this.socket.terminate();
  }

  close(code, reason) {
    this.socket.close(code, reason);
  }
}

export class Scripted {
  peers = [];
  clients = [];

  static async start() {
    const scripted = new Scripted();
    scripted.server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    scripted.server.on("connection", (socket) => scripted.peers.push(new Peer(socket)));
    await until(() => scripted.server.address() !== null, "the server listens");
    scripted.url = `ws://127.0.0.1:${scripted.server.address().port}/ws`;
    return scripted;
  }

  peer(number) {
    return until(() => this.peers[number - 1], `connection ${number}`);
  }

  /** A client in a hurry: what takes seconds in a page takes milliseconds here. */
  client(options = {}) {
    const client = new Handoff(this.url, { WebSocket, firstDelay: 4, maxDelay: 40, settled: 1000, gap: 100, ...options });
    this.clients.push(client);
    return client;
  }

  async stop() {
    for (const client of this.clients) client.close();
    for (const socket of this.server.clients) socket.terminate();
    await new Promise((done) => this.server.close(done));
  }
}

/** Every event of one task that the page is told of, in order. */
export function record(task) {
  const events = [];
  task.on("event", (event) => events.push(event)).on("end", () => events.push("end"));
  return events;
}

/** The events of a task as a gateway numbers them. */
export function story(id) {
  return [
    { id, event: "accepted", seq: 1, position: 0 },
    { id, event: "started", seq: 2, attempt: 1, worker: "worker-1" },
    { id, event: "progress", seq: 3, attempt: 1, done: 1, total: 2 },
    { id, event: "progress", seq: 4, attempt: 1, done: 2, total: 2 },
    { id, event: "succeeded", seq: 5, attempt: 1, result: { sent: 2 } },
  ];
}

/** A Storage, as a browser has it. */
export class MemoryStorage {
  #items = new Map();

  get length() {
    return this.#items.size;
  }

  key(index) {
    return [...this.#items.keys()][index] ?? null;
  }

  getItem(key) {
    return this.#items.get(key) ?? null;
  }

  setItem(key, value) {
    this.#items.set(key, String(value));
  }

  removeItem(key) {
    this.#items.delete(key);
  }
}
