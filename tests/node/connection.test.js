/* What survives when the connection does not: drops, silence, closes with a code, refusals on the way back, reloads. */

import assert from "node:assert/strict";
import net from "node:net";
import { afterEach, beforeEach, test } from "node:test";
import { MemoryStorage, record, Scripted, story, until } from "./scripted.js";

let scripted;
beforeEach(async () => { scripted = await Scripted.start(); });
afterEach(() => scripted.stop());

const unknown = (id) => ({ id, error: { code: "unknown_task", message: "no task" } });

test("a submit that was not answered is sent again under its id, in the order of submission", async () => {
  const client = scripted.client();
  const tasks = [1, 2, 3].map((n) => client.submit("echo", { n }));
  const first = await scripted.peer(1);
  const sent = [...(await first.heard(3))];
  first.drop();
  const second = await scripted.peer(2);
  assert.deepEqual(await second.heard(3), sent);
  for (const task of tasks) second.say(...story(task.id));
  assert.equal((await Promise.all(tasks.map((task) => task.result))).length, 3);
});

test("a task that was heard of attaches after the last seq, and every event is told once", async () => {
  const task = scripted.client().submit("send_mails");
  const events = record(task);
  const first = await scripted.peer(1);
  first.say(...story(task.id).slice(0, 3));
  await until(() => task.seq === 3, "seq 3");
  first.drop();
  const second = await scripted.peer(2);
  assert.deepEqual(await second.heard(1), [{ id: task.id, attach: 3 }]);
  second.say(...story(task.id)); // more than was asked for
  await task.result;
  assert.deepEqual(events, [...story(task.id), "end"]);
});

test("however often the connection drops, each event is told once and in order", async () => {
  const task = scripted.client().submit("send_mails");
  const events = record(task);
  for (const [index, event] of story(task.id).entries()) {
    const peer = await scripted.peer(index + 1);
    await peer.heard(1);
    peer.say(...story(task.id).slice(Math.max(0, index - 2), index), event);
    await until(() => task.seq === event.seq, `seq ${event.seq}`);
    peer.drop();
  }
  assert.deepEqual(events, [...story(task.id), "end"]);
});

for (const code of [1001, 1011, 1012, 1013]) {
  test(`close code ${code}: it comes back, and says why it went`, async () => {
    const client = scripted.client();
    const states = [];
    client.on("state", (change) => states.push(change));
    (await scripted.peer(1)).close(code, "later");
    await scripted.peer(2);
    const waiting = states.find(({ state }) => state === "waiting");
    assert.deepEqual([waiting.code, waiting.reason], [code, "later"]);
  });
}

test("however often the gateway is replaced, the wait is as short as the first", async () => {
  const client = scripted.client({ firstDelay: 2, maxDelay: 64 });
  const delays = [];
  client.on("state", ({ state, delay }) => state === "waiting" && delays.push(delay));
  for (let number = 1; number <= 5; number += 1) (await scripted.peer(number)).close(1012);
  await scripted.peer(6);
  assert.ok(delays.slice(0, 5).every((delay) => delay >= 1 && delay <= 2), String(delays));
});

test("the wait grows with each failure up to its ceiling, with jitter, and 'try later' is not answered at once", async () => {
  const client = scripted.client({ firstDelay: 2, maxDelay: 16 });
  const delays = [];
  client.on("state", ({ state, delay }) => state === "waiting" && delays.push(delay));
  for (let number = 1; number <= 6; number += 1) (await scripted.peer(number)).drop();
  await scripted.peer(7);
  for (const [failures, delay] of delays.slice(0, 6).entries()) {
    const most = Math.min(16, 2 * 2 ** failures);
    assert.ok(delay >= most / 2 && delay <= most, `${delay} after ${failures} failures`);
  }
  const other = scripted.client({ firstDelay: 2 });
  const later = [];
  other.on("state", ({ state, delay }) => state === "waiting" && later.push(delay));
  (await scripted.peer(8)).close(1013);
  await until(() => later.length > 0, "the wait");
  assert.ok(later[0] >= 4, String(later[0]));
});

test("a refusal for good (1008) ends it: requests are rejected, tasks wait for connect()", async () => {
  const client = scripted.client();
  const task = client.submit("echo");
  const asked = client.describe();
  const peer = await scripted.peer(1);
  await peer.heard(2);
  peer.close(1008, "no token");
  await assert.rejects(asked, { code: "unavailable", message: "no token" });
  assert.deepEqual([client.state, task.finished, scripted.peers.length], ["closed", false, 1]);
  client.connect();
  const second = await scripted.peer(2);
  await second.heard(1);
  second.say(...story(task.id));
  assert.deepEqual(await task.result, { sent: 2 });
});

test("a message over the gateway's limit is refused, not sent for ever; the others go on", async () => {
  const client = scripted.client();
  const small = client.submit("echo", { n: 1 });
  const large = client.submit("echo", { text: "x".repeat(1000) });
  const peer = await scripted.peer(1);
  await peer.heard(2);
  peer.close(1009, "message over 65536 bytes");
  await assert.rejects(large.result, { code: "too_large", message: "message over 65536 bytes" });
  const second = await scripted.peer(2);
  assert.deepEqual((await second.heard(1)).map(({ id }) => id), [small.id]);
});

test("a peer that has gone silent is noticed by a ping, and left", async () => {
  const client = scripted.client({ quiet: 30, patience: 60 });
  const task = client.submit("echo");
  const first = await scripted.peer(1);
  await until(() => first.pings >= 2, "pings, answered");
  assert.equal(scripted.peers.length, 1);
  first.deaf = true;
  const second = await scripted.peer(2);
  await second.heard(1);
  second.say(...story(task.id));
  first.say({ id: task.id, event: "failed", seq: 1, error: { code: "failed", message: "from the connection given up" } });
  assert.deepEqual(await task.result, { sent: 2 });
});

test("a handshake that is never answered is given up", async () => {
  const sockets = [];
  const mute = net.createServer((socket) => sockets.push(socket.on("error", () => {})));
  await new Promise((done) => mute.listen(0, "127.0.0.1", done));
  const url = scripted.url;
  scripted.url = `ws://127.0.0.1:${mute.address().port}/ws`;
  const client = scripted.client({ patience: 40 });
  scripted.url = url;
  await until(() => sockets.length >= 3, "a third attempt");
  client.close();
  for (const socket of sockets) socket.destroy();
  await new Promise((done) => mute.close(done));
});

test("wake() does not wait for the back-off, and tries a connection that may be dead", async () => {
  const client = scripted.client({ firstDelay: 60000, maxDelay: 60000, patience: 50 });
  const first = await scripted.peer(1);
  first.drop();
  await until(() => client.state === "waiting", "the wait");
  client.wake();
  const second = await scripted.peer(2);
  await until(() => client.state === "open", "the second connection");
  second.deaf = true;
  client.wake();
  await until(() => client.state === "waiting", "the silence noticed");
});

test("after close() nothing is tried any more", async () => {
  const client = scripted.client();
  const peer = await scripted.peer(1);
  client.close();
  await until(() => peer.over, "the close");
  client.wake();
  assert.deepEqual([client.state, scripted.peers.length], ["closed", 1]);
});

test("requests that were not answered are asked again on the next connection", async () => {
  const client = scripted.client();
  const asked = client.describe();
  const first = await scripted.peer(1);
  await first.heard(1);
  first.drop();
  const second = await scripted.peer(2);
  await second.heard(1);
  second.say({ describe: { functions: [1] } });
  assert.deepEqual(await asked, { functions: [1] });
});

test("a cancel that the lost connection may have swallowed is said again", async () => {
  const task = scripted.client().submit("sleep", [9]);
  const first = await scripted.peer(1);
  first.say(story(task.id)[0]);
  await until(() => task.state === "accepted", "accepted");
  first.drop();
  task.cancel();
  assert.deepEqual(await (await scripted.peer(2)).heard(2), [{ id: task.id, attach: 1 }, { id: task.id, cancel: true }]);
});

test("a task that was heard of and is forgotten is not run again unless that was said to be harmless", async () => {
  const client = scripted.client();
  const careful = client.submit("charge");
  const harmless = client.submit("report", undefined, { idempotent: true });
  const first = await scripted.peer(1);
  first.say(story(careful.id)[0], story(harmless.id)[0]);
  await until(() => careful.seq === 1 && harmless.seq === 1, "both accepted");
  first.drop();
  const second = await scripted.peer(2);
  await second.heard(2);
  second.say(unknown(careful.id), unknown(harmless.id));
  await assert.rejects(careful.result, { code: "unknown_task" });
  assert.deepEqual((await second.heard(3))[2], { id: harmless.id, function: "report" });
  second.say(...story(harmless.id));
  assert.deepEqual(await harmless.result, { sent: 2 });
});

test("after a reload the unfinished tasks are there again: unanswered ones are submitted, the others attach where they were", async () => {
  const storage = new MemoryStorage();
  const before = scripted.client({ storage });
  const heard = before.submit("send_mails", { to: [] });
  const first = await scripted.peer(1);
  first.say(...story(heard.id).slice(0, 3));
  await until(() => heard.seq === 3, "seq 3");
  const unanswered = before.submit("echo", { n: 1 });
  const sent = (await first.heard(2))[1];
  before.close();

  const after = scripted.client({ storage });
  assert.deepEqual([...after.tasks.keys()], [heard.id, unanswered.id]);
  const resumed = after.tasks.get(heard.id);
  assert.deepEqual([resumed.function, resumed.state, resumed.done, resumed.total], ["send_mails", "started", 1, 2]);
  const events = record(resumed);
  const second = await scripted.peer(2);
  assert.deepEqual(await second.heard(2), [{ id: heard.id, attach: 3 }, sent]);
  second.say(...story(heard.id).slice(3), ...story(unanswered.id));
  await Promise.all([resumed.result, after.tasks.get(unanswered.id).result]);
  assert.deepEqual(events, [...story(heard.id).slice(3), "end"]);
  assert.equal(storage.length, 0);
});

test("pages that share a storage keep each its own tasks, and a full storage is told of and stops nothing", async () => {
  const storage = new MemoryStorage();
  storage.setItem("something else", "{}");
  const [one, other] = [scripted.client({ storage }), scripted.client({ storage })];
  const task = one.submit("echo");
  other.submit("echo");
  assert.equal(storage.length, 3);
  const peer = await until(() => scripted.peers.find(({ received }) => received.some(({ id }) => id === task.id)), "the submit");
  peer.say(...story(task.id));
  await task.result;
  assert.equal(storage.length, 2);
  const unsaved = [];
  storage.setItem = () => { throw new Error("QuotaExceededError"); };
  other.on("unsaved", (error) => unsaved.push(error.message));
  other.submit("echo");
  assert.deepEqual([unsaved, other.tasks.size], [["QuotaExceededError"], 2]);
});
