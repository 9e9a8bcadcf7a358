"""Clients that submit, send again, cancel, attach and vanish at random; and what must be true of everything that any of them was told."""

import json
import random
import socket
import threading
import uuid
from contextlib import suppress
from typing import Any

import websocket

from tests.effects import check_story, effects
from tests.harness import FINAL, Server, WsClient

ONCE = ("mark", "flow", "fail", "sleep")


class Talker:
    """One connection, read by a thread of its own. `watched` says for each task after which number it was asked for, and how."""

    def __init__(self, url: str) -> None:
        self._client = WsClient(url, timeout=60)
        self.heard: dict[str, list[Any]] = {}
        self.refused: list[Any] = []
        self.watched: dict[str, tuple[int, str]] = {}
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def say(self, message: Any) -> None:
        self._client.send(message)

    def vanish(self) -> None:
        """End the connection without a word."""
        sock = self._client.socket.sock
        assert sock is not None
        sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._client.socket.shutdown()

    def _listen(self) -> None:
        with suppress(websocket.WebSocketException, OSError):  # the end of the connection
            while text := self._client.socket.recv():
                self._take(json.loads(text))

    def _take(self, message: Any) -> None:
        if "event" in message:
            self.heard.setdefault(message["id"], []).append(message)
        elif "error" in message:
            self.refused.append(message)


class Load:
    """One run. Every task is known by the submit that made it; `conflicts` are the ids that were sent once more with other content."""

    def __init__(self, server: Server, seed: int, talkers: int = 8) -> None:
        print(f"seed {seed}")
        self.tasks: dict[str, dict[str, Any]] = {}
        self._server = server
        self._random = random.Random(seed)
        self._talkers = [Talker(server.ws_url) for _ in range(talkers)]
        self._gone: list[Talker] = []
        self._conflicts: list[str] = []
        self._steps = [self.submit] * 10 + [self.again] * 4 + [self.conflict] + [self.cancel] * 3 + [self.attach] * 4 + [self.vanish]

    def run(self, count: int) -> None:
        """Go on until so many tasks were made."""
        while len(self.tasks) < count:
            self._random.choice(self._steps)()

    def submit(self) -> None:
        """A new task."""
        chance = self._random
        functions: list[tuple[str, Any]] = [
            *[("mark", {"note": "ملاحظة"}), ("mark", {"seconds": 0.02}), ("flow", {"count": 5, "pause": 0.002}), ("second_time", {})],
            *[("fail", []), ("sleep", [0.01])],
        ]
        function, args = chance.choice(functions)
        options: dict[str, Any] = {"events": chance.choice(["all", "all", "final"]), "priority": chance.randint(-3, 3)}
        if chance.random() < 0.1:
            options["delay"] = chance.random() * 0.2
        if chance.random() < 0.1:
            options["on_disconnect"] = "cancel"
        task_id = uuid.UUID(int=chance.getrandbits(128)).hex
        self.tasks[task_id] = {"id": task_id, "function": function, "args": args, **options}
        self._send(chance.choice(self._talkers), self.tasks[task_id])

    def again(self) -> None:
        """The same once more, by somebody who does not watch it; now and then cancelled at once, as if it were new."""
        if (task := self._some_task()) and (talker := self._somebody_else(task["id"])):
            self._send(talker, task)
            if self._random.random() < 0.2:
                talker.say({"id": task["id"], "cancel": True})

    def conflict(self) -> None:
        """Other content under an id that is taken for sure."""
        known = [task_id for talker in self._talkers for task_id in talker.heard]
        if known and (talker := self._somebody_else(task_id := self._random.choice(known))):
            self._conflicts.append(task_id)
            talker.say({"id": task_id, "function": "echo", "args": {"other": 1}})

    def cancel(self) -> None:
        """Somebody's task, in whatever state it is."""
        if task := self._some_task():
            self._random.choice(self._talkers).say({"id": task["id"], "cancel": True})

    def attach(self) -> None:
        """By somebody who does not watch it yet, from somewhere in what others have heard."""
        if (task := self._some_task()) and (talker := self._somebody_else(task["id"])):
            longest = max(len(each.heard.get(task["id"], [])) for each in self._talkers)
            after = self._random.randint(0, longest) if task["events"] == "all" else 0
            talker.watched[task["id"]] = after, "all"
            talker.say({"id": task["id"], "attach": after})

    def vanish(self) -> None:
        """One connection ends, another begins."""
        if len(self.tasks) > 20:
            gone = self._talkers.pop(self._random.randrange(len(self._talkers)))
            gone.vanish()
            self._gone.append(gone)
            self._talkers.append(Talker(self._server.ws_url))

    def stories(self) -> dict[str, list[Any]]:
        """Send every task once more, and wait for all of every story."""
        final = Talker(self._server.ws_url)
        for task in self.tasks.values():
            final.say({**task, "events": "all", "on_disconnect": "detach"})
        while not all(final.heard.get(task_id, [{}])[-1].get("event") in FINAL for task_id in list(self.tasks)):
            assert not final.refused, final.refused
            final._thread.join(0.02)
        for talker in [*self._talkers, final]:
            talker.vanish()
        return final.heard

    def check(self, stories: dict[str, list[Any]]) -> None:
        """One final event each; every watcher saw a part of the same story without gap or double; nothing ran twice."""
        for story in stories.values():
            check_story(story)
        for talker in [*self._gone, *self._talkers]:
            for task_id, (after, how) in talker.watched.items():
                self._check_part(talker.heard.get(task_id, []), stories[task_id], after, how)
        refused = [(each["error"]["code"], each["id"]) for talker in [*self._gone, *self._talkers] for each in talker.refused]
        assert {code for code, _ in refused} <= {"id_conflict", "unknown_task"}, refused  # unknown: its submit was lost with a connection
        assert {task_id for code, task_id in refused if code == "id_conflict"} <= set(self._conflicts)
        self._check_runs(stories)

    def _check_part(self, part: list[Any], story: list[Any], after: int, how: str) -> None:
        if how == "final":
            assert part in ([], story[-1:]), (how, part, story)
        else:
            assert part == story[after : after + len(part)], (after, part, story)

    def _check_runs(self, stories: dict[str, list[Any]]) -> None:
        attempts: dict[str, list[int]] = {}
        for effect in effects(self._server):
            attempts.setdefault(effect.id, []).append(effect.attempt)
        for task_id, story in stories.items():
            ran = attempts.get(task_id, [])
            assert len(ran) == len(set(ran)), (ran, story)
            assert len(ran) <= (1 if self.tasks[task_id]["function"] in ONCE else 3), (ran, story)
            if story[-1]["event"] == "succeeded" and self.tasks[task_id]["function"] != "sleep":
                assert ran, story

    def _send(self, talker: Talker, task: dict[str, Any]) -> None:
        talker.watched[task["id"]] = 0, task["events"]
        talker.say(task)

    def _some_task(self) -> dict[str, Any]:
        return self.tasks[self._random.choice(list(self.tasks))] if self.tasks else {}

    def _somebody_else(self, task_id: str) -> Talker | None:
        others = [talker for talker in self._talkers if task_id not in talker.watched]
        return self._random.choice(others) if others else None
