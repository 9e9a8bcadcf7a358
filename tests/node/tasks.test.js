/* What a page is told of its tasks while the connection holds: events once and in order, results, refusals, requests. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { HandoffError } from "../../app/gateway/page/handoff.js";
import { record, Scripted, story, until } from "./scripted.js";

let scripted;
beforeEach(async () => { scripted = await Scripted.start(); });
afterEach(() => scripted.stop());

test("a task is submitted under a new id, tells each event by its name, and gives its result", async () => {
  const task = scripted.client().submit("send_mails", { to: ["ä@example.org"] }, { priority: 3, on_disconnect: "cancel" });
  const events = record(task);
  const progress = [];
  task.on("progress", ({ done }) => progress.push(done));
  const peer = await scripted.peer(1);
  const [submit] = await peer.heard(1);
  assert.match(submit.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const said = { function: "send_mails", args: { to: ["ä@example.org"] }, priority: 3, on_disconnect: "cancel" };
  assert.deepEqual(submit, { id: task.id, ...said });
  peer.say(...story(task.id));
  assert.deepEqual(await task.result, { sent: 2 });
  assert.deepEqual(events, [...story(task.id), "end"]);
  assert.deepEqual(progress, [1, 2]);
  assert.deepEqual([task.state, task.finished, task.seq, task.done, task.total], ["succeeded", true, 5, 2, 2]);
});

test("ids are UUIDs also where there is no crypto.randomUUID", async () => {
  const original = crypto.randomUUID;
  Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true });
  try {
    const ids = [1, 2].map(() => scripted.client().submit("echo").id);
    for (const id of ids) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.notEqual(ids[0], ids[1]);
  } finally {
    Object.defineProperty(crypto, "randomUUID", { value: original, configurable: true });
  }
});

test("events that are repeated are told once", async () => {
  const task = scripted.client().submit("send_mails");
  const events = record(task);
  const [first, second, third, ...rest] = story(task.id);
  (await scripted.peer(1)).say(first, second, second, first, third, second, ...rest, ...rest);
  await task.result;
  assert.deepEqual(events, [...story(task.id), "end"]);
});

test("where an event is missing, what followed is asked for again and told in order", async () => {
  const task = scripted.client().submit("send_mails");
  const events = record(task);
  const peer = await scripted.peer(1);
  const [first, second, third, fourth, last] = story(task.id);
  peer.say(first, fourth, last);
  assert.deepEqual((await peer.heard(2))[1], { id: task.id, attach: 1 });
  peer.say(second, third, fourth, last);
  await task.result;
  assert.deepEqual(events, [...story(task.id), "end"]);
});

test("a gap that nothing fills does not hold the task up for ever", async () => {
  const task = scripted.client().submit("send_mails");
  const events = record(task);
  const peer = await scripted.peer(1);
  const [first, , , , last] = story(task.id);
  peer.say(first, last);
  await peer.heard(3);
  peer.say(last);
  assert.deepEqual(await task.result, { sent: 2 });
  assert.deepEqual(events, [first, last, "end"]);
});

test("of a task submitted for its final event alone, that event is taken at once", async () => {
  const task = scripted.client().submit("echo", undefined, { events: "final" });
  const peer = await scripted.peer(1);
  await peer.heard(1);
  peer.say(story(task.id)[4]);
  assert.deepEqual(await task.result, { sent: 2 });
  assert.equal(peer.received.length, 1);
});

test("a generator's values, and a second attempt, are told as they come", async () => {
  const task = scripted.client().submit("countdown", [1]);
  const values = [];
  task.on("output", ({ value }) => values.push(value));
  const id = task.id;
  (await scripted.peer(1)).say(
    { id, event: "accepted", seq: 1 },
    { id, event: "started", seq: 2, attempt: 1 },
    { id, event: "output", seq: 3, attempt: 1, value: 1 },
    { id, event: "retrying", seq: 4, attempt: 1, after: 0.1, error: { code: "crashed", message: "its process died" } },
    { id, event: "started", seq: 5, attempt: 2 },
    { id, event: "output", seq: 6, attempt: 2, value: 0 },
    { id, event: "succeeded", seq: 7, attempt: 2, result: null },
  );
  assert.equal(await task.result, null);
  assert.deepEqual([values, task.attempt], [[1, 0], 2]);
});

for (const ending of ["failed", "timed_out", "cancelled", "interrupted"]) {
  test(`a task that has ${ending} rejects its result with the error that it was given`, async () => {
    const task = scripted.client().submit("fail");
    (await scripted.peer(1)).say({ id: task.id, event: "accepted", seq: 1 });
    (await scripted.peer(1)).say({ id: task.id, event: ending, seq: 2, attempt: 1, error: { code: ending, message: "so it was", line: 3 } });
    await assert.rejects(task.result, (error) => {
      assert.ok(error instanceof HandoffError);
      assert.deepEqual([error.code, error.message, error.details, error.id], [ending, "so it was", { line: 3 }, task.id]);
      return true;
    });
    assert.equal(task.state, ending);
  });
}

test("a refused submit ends the task, and rejects its result with code and details", async () => {
  const client = scripted.client();
  const task = client.submit("send_mails", { to: 3 });
  const refusals = [];
  task.on("refused", (error) => refusals.push(error.code));
  const error = { code: "bad_arguments", message: "to: a list of strings", parameter: "to" };
  (await scripted.peer(1)).say({ id: task.id, error });
  await assert.rejects(task.result, { code: "bad_arguments", details: { parameter: "to" } });
  assert.deepEqual([refusals, task.state, client.tasks.size], [["bad_arguments"], "refused", 0]);
});

test("a failed task that is only listened to leaves no rejection unhandled", async () => {
  const unhandled = [];
  const note = (reason) => unhandled.push(reason);
  process.on("unhandledRejection", note);
  const client = scripted.client();
  const task = client.submit("fail");
  (await scripted.peer(1)).say({ id: task.id, error: { code: "unknown_function", message: "no such" } });
  await until(() => task.finished, "the refusal");
  await client.ping();
  process.off("unhandledRejection", note);
  assert.deepEqual(unhandled, []);
});

test("cancel is sent, and a cancel that is refused does not end a task that runs", async () => {
  const task = scripted.client().submit("sleep", [9]);
  const refusals = [];
  task.on("refused", ({ code }) => refusals.push(code));
  const peer = await scripted.peer(1);
  peer.say(...story(task.id).slice(0, 2));
  await until(() => task.state === "started", "the start");
  task.cancel();
  assert.deepEqual((await peer.heard(2))[1], { id: task.id, cancel: true });
  peer.say({ id: task.id, error: { code: "forbidden", message: "not yours" } }, ...story(task.id).slice(2));
  assert.deepEqual(await task.result, { sent: 2 });
  assert.deepEqual(refusals, ["forbidden"]);
});

test("one id is one task: the same content gives it again, other content is a conflict", async () => {
  const client = scripted.client();
  const task = client.submit("echo", { a: 1 }, { id: "mine" });
  assert.equal(client.submit("echo", { a: 1 }, { id: "mine", priority: 1 }), task);
  assert.equal(client.attach("mine"), task);
  assert.throws(() => client.submit("echo", { a: 2 }, { id: "mine" }), { code: "id_conflict" });
  assert.equal((await (await scripted.peer(1)).heard(1)).length, 1);
});

test("what JSON cannot say is an error to the caller, and nothing is sent", async () => {
  const client = scripted.client();
  for (const value of [NaN, Infinity]) assert.throws(() => client.submit("echo", { value }), { code: "bad_arguments" });
  assert.throws(() => client.submit("echo", { value: 1n }), TypeError);
  assert.equal(client.tasks.size, 0);
});

test("attach asks for what came after a seq", async () => {
  const task = scripted.client().attach("elsewhere", 2);
  const events = record(task);
  const peer = await scripted.peer(1);
  assert.deepEqual((await peer.heard(1))[0], { id: "elsewhere", attach: 2 });
  peer.say(...story("elsewhere").slice(2));
  await task.result;
  assert.deepEqual(events, [...story("elsewhere").slice(2), "end"]);
});

test("an attach to a task that nobody knows ends as unknown_task", async () => {
  const task = scripted.client().attach("nobody");
  (await scripted.peer(1)).say({ id: "nobody", error: { code: "unknown_task", message: "no task" } });
  await assert.rejects(task.result, { code: "unknown_task" });
});

test("an attach that is refused for the moment is tried again when the gateway says", async () => {
  const task = scripted.client().attach("busy");
  const peer = await scripted.peer(1);
  await peer.heard(1);
  peer.say({ id: "busy", error: { code: "rate_limited", message: "slowly", retry_after: 0.02 } });
  assert.deepEqual((await peer.heard(2))[1], { id: "busy", attach: 0 });
  peer.say(...story("busy"));
  assert.deepEqual(await task.result, { sent: 2 });
});

test("describe, list and ping are answered in their order, and a refusal without an id is that of the first", async () => {
  const client = scripted.client();
  const asked = Promise.allSettled([client.describe(), client.list(-1), client.list(5), client.ping()]);
  const peer = await scripted.peer(1);
  assert.deepEqual((await peer.heard(1)).at(-1), { describe: true });
  peer.say({ describe: { functions: [] } });
  assert.deepEqual((await peer.heard(2)).at(-1), { list: { limit: -1 } });
  peer.say({ error: { code: "bad_request", message: "limit: 1 or more" } });
  assert.deepEqual((await peer.heard(3)).at(-1), { list: { limit: 5 } });
  peer.say({ list: [{ id: "a" }] });
  const [description, refused, list, round] = await asked;
  assert.deepEqual([description.value, refused.reason.code, list.value], [{ functions: [] }, "bad_request", [{ id: "a" }]]);
  assert.ok(round.value >= 0);
});

test("what belongs to nothing here is handed to whoever listens for it", async () => {
  const client = scripted.client();
  const strays = [];
  const refusals = [];
  client.on("stray", (message) => strays.push(message)).on("refused", ({ code }) => refusals.push(code));
  const peer = await scripted.peer(1);
  peer.socket.send("task complete");
  peer.say({ hello: 1 }, { error: { code: "bad_request", message: "?" } }, { id: "x", event: "started", seq: 1 });
  await until(() => refusals.length > 0, "the refusal");
  await client.ping();
  assert.deepEqual([strays, refusals], [["task complete", { hello: 1 }], ["bad_request"]]);
});
