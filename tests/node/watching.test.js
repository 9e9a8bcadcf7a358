/* What handoff.js says and tells of watching, and of following a task that others began, when the connection is lost in between. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Scripted, story, until } from "./scripted.js";

let scripted;

beforeEach(async () => { scripted = await Scripted.start(); });
afterEach(() => scripted.stop());

test("watching is asked for again on each connection, and ends when it is told to", async () => {
  const client = scripted.client();
  const seen = [];
  client.on("watch", (what) => seen.push(what));
  client.watch();
  const first = await scripted.peer(1);
  assert.deepEqual((await first.heard(1))[0], { watch: true });
  first.say({ watch: { at: 1, figures: {} } });
  await until(() => seen.length === 1, "what is seen");
  first.drop();
  const second = await scripted.peer(2);
  assert.deepEqual(await second.heard(1), [{ watch: true }]);
  client.watch(false);
  assert.deepEqual((await second.heard(2))[1], { watch: false });
  second.say({ watch: { at: 2 } }, { watch: null }, { id: "x", error: { code: "bad_request", message: "mark" } });
  await new Promise((heard) => client.on("refused", heard));
  assert.deepEqual(seen.map(({ at }) => at), [1]);
});

test("a task that is followed is told from its first event, each once, over a lost connection", async () => {
  const client = scripted.client();
  const peer = await scripted.peer(1);
  await until(() => client.state === "open", "open");
  const heard = [];
  client.follow("a", (event, error) => heard.push(event?.seq ?? error.code));
  assert.deepEqual(await peer.heard(1), [{ id: "a", attach: 0 }]);
  peer.say(...story("a").slice(0, 3));
  await until(() => heard.length === 3, "three events");
  peer.drop();
  const again = await scripted.peer(2);
  assert.deepEqual(await again.heard(1), [{ id: "a", attach: 3 }]);
  again.say(...story("a").slice(1), { id: "a", error: { code: "unknown_task", message: "gone" } });
  await until(() => heard.length === 6, "the rest");
  assert.deepEqual(heard, [1, 2, 3, 4, 5, "unknown_task"]);
});

test("a search says where the next one goes on", async () => {
  const client = scripted.client();
  const peer = await scripted.peer(1);
  await until(() => client.state === "open", "open");
  const found = client.search({ state: "failed" });
  assert.deepEqual((await peer.heard(1))[0], { list: { state: "failed" } });
  peer.say({ list: [{ id: "a" }], before: 7 });
  assert.deepEqual(await found, { tasks: [{ id: "a" }], before: 7 });
});
