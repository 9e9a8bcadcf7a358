"""A WebSocket client that keeps count: it submits tasks under ids of its own, and goes on after every loss of its connection.

    connect (again, later and later) ─▶ send again what was not answered, attach to what was accepted after its last number ─▶ new tasks

What was said is kept in the `Told` of each task and is judged in `bench/faults/accounts.py`. One thread a connection.
"""

import json
import math
import random
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import websocket

from bench.faults.accounts import FINAL, Told

AGAIN_LATER = frozenset(("busy", "unavailable", "disk_full"))
"""Refusals after which the same task is sent again."""

_BACK_OFF = (0.05, 1.0)
_LOOK_EVERY = 0.05
_SEND_AGAIN_AFTER = 0.3


class Unexpected(Exception):
    """A message that should not have come."""


class Line(threading.Thread):
    """One connection at a time, with `window` unfinished tasks at most. `url` is asked before each connect: the server may have moved."""

    def __init__(self, url: Callable[[], str], tasks: list[Told], window: int, seed: int, share: float) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._submitted = 0
        self.most = len(tasks)
        self.allowed = 0
        self.closing = False
        self._todo = deque(tasks)
        self._open: dict[str, Told] = {}
        self._window = window
        self._random = random.Random(seed)
        self._cancelled_share = share
        self._extra: deque[Told] = deque()
        self._later: list[tuple[float, Told]] = []
        self._socket: Any = None
        self._left = threading.Event()
        self.finished = self.unanswered = 0
        self.heard_at = self.accepted_at = 0.0
        self.codes: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Until every task has its final report, or `stop`."""
        try:
            wait = _BACK_OFF[0]
            while not self.over:
                try:
                    self._connect()
                    wait = _BACK_OFF[0]
                    self._converse()
                except (OSError, websocket.WebSocketException, AssertionError):
                    self._disconnect()
                    time.sleep(wait)
                    wait = min(wait * 2, _BACK_OFF[1])
        except BaseException as error:  # noqa: BLE001 - the row is judged by it
            self.failure = error
        finally:
            self._disconnect()

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        return self._left.is_set() or (self.closing and not (self._todo or self._open or self._later or self._extra))

    @property
    def idle(self) -> bool:
        """Whether it waits for nothing, and may submit nothing."""
        return not (self._open or self._later or self._extra) and self._submitted >= self.allowed

    def add(self, task: Told) -> None:
        """One task more, whatever is allowed; for other threads."""
        self._extra.append(task)

    def stop(self) -> None:
        """Leave the rest."""
        self._left.set()

    def _connect(self) -> None:
        self._socket = websocket.create_connection(self._url(), timeout=10)
        for task in list(self._open.values()):
            if task.waits:
                self.unanswered += 1
                self._submit(task)
            else:
                self._send({"id": task.id, "attach": task.seq})

    def _disconnect(self) -> None:
        if self._socket is not None:
            with suppress(OSError, websocket.WebSocketException):
                self._socket.shutdown()
            self._socket = None

    def _converse(self) -> None:
        while not self.over:
            self._submit_what_fits()
            if select.select([self._socket.sock], [], [], _LOOK_EVERY)[0]:
                text = self._socket.recv()
                if not text:
                    raise websocket.WebSocketConnectionClosedException("closed")
                self._take(json.loads(text))

    def _submit_what_fits(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._later if entry[0] <= now]
        for entry in due:
            self._later.remove(entry)
            self._todo.appendleft(entry[1])
        while self._extra:
            task = self._extra.popleft()
            self._open[task.id] = task
            self._submit(task)
        while self._todo and len(self._open) < self._window and (self._todo[0].sent or self._submitted < self.allowed):
            task = self._todo.popleft()
            self._submitted += not task.sent
            self._open[task.id] = task
            self._submit(task)

    def _submit(self, task: Told) -> None:
        task.waits = True
        task.sent += 1
        self._send(task.message)

    def _send(self, message: Any) -> None:
        self._socket.send(json.dumps(message))

    def _take(self, message: dict[str, Any]) -> None:
        self.heard_at = time.monotonic()
        task = self._open.get(message.get("id", ""))
        if "event" in message and task is not None:
            self._hear(task, message)
        elif task is not None:
            self._refused(task, message["error"]["code"])
        else:
            raise Unexpected(f"{message}, which no task of ours waits for")

    def _hear(self, task: Told, message: dict[str, Any]) -> None:
        seq, event = message["seq"], message["event"]
        task.events.append((seq, event))
        task.seq = seq
        task.accepted, task.waits = True, False
        if event == "accepted":
            self.accepted_at = self.heard_at
        if event in FINAL:
            task.final = message
            del self._open[task.id]
            self.finished += 1
        elif event == "accepted" and not task.spared and self._random.random() < self._cancelled_share:
            self._send({"id": task.id, "cancel": True})

    def _refused(self, task: Told, code: str) -> None:
        self.codes[code] += 1
        del self._open[task.id]
        if code in AGAIN_LATER and not task.accepted:
            task.waits = False
            self._later.append((time.monotonic() + _SEND_AGAIN_AFTER, task))
        else:
            task.refused = code


class Driver:
    """Several lines that share the tasks of a row."""

    def __init__(self, url: Callable[[], str], messages: list[dict[str, Any]], seed: int, lines: int = 4, window: int = 50) -> None:
        self.tasks = {message["id"]: Told(message) for message in messages}
        everything = list(self.tasks.values())
        share = 0.0 if all(task.function == "once" for task in everything) else 0.02
        self.lines: Sequence[Line] = [Line(url, everything[number::lines], window, seed + number, share) for number in range(lines)]
        for line in self.lines:
            line.start()

    def check(self) -> None:
        """Raise what a line failed with."""
        for line in self.lines:
            if line.failure is not None:
                raise line.failure

    @property
    def finished(self) -> int:
        """How many tasks have their final report."""
        return sum(line.finished for line in self.lines)

    @property
    def unanswered(self) -> int:
        """U: submits that were under way when their connection was lost."""
        return sum(line.unanswered for line in self.lines)

    @property
    def heard_at(self) -> float:
        """When anything was heard last, monotonic."""
        return max(line.heard_at for line in self.lines)

    @property
    def idle(self) -> bool:
        """Whether all that was submitted has its final report, and all that may be has been submitted."""
        return all(line.idle for line in self.lines)

    @property
    def busy(self) -> bool:
        """Whether some task has started, and is not over."""
        return any(task.final is None and task.seq > 1 for task in list(self.tasks.values()))

    def add(self, message: dict[str, Any]) -> None:
        """One task more, at once."""
        self.tasks[message["id"]] = task = Told(message, spared=True)
        self.lines[0].add(task)

    @property
    def accepted_at(self) -> float:
        """When something was accepted last, monotonic."""
        return max(line.accepted_at for line in self.lines)

    def refused(self, code: str) -> int:
        """How often something was refused with this code."""
        return sum(line.codes[code] for line in self.lines)

    def allow(self, share: float) -> None:
        """Submit no more than this share of the tasks for now."""
        for line in self.lines:
            line.allowed = math.ceil(line.most * share)

    def stop(self) -> None:
        """Leave the rest."""
        for line in self.lines:
            line.stop()
        for line in self.lines:
            line.join(15)

    def wait(self, timeout: float) -> bool:
        """Block until every task has its final report; whether that came in time. Raises what a line failed with."""
        until = time.monotonic() + timeout
        self.allow(1)
        for line in self.lines:
            line.closing = True
        for line in self.lines:
            line.join(max(0.0, until - time.monotonic()))
        in_time = not any(line.is_alive() for line in self.lines)
        self.stop()
        self.check()
        return in_time


def witness(url: str, tasks: dict[str, Told], most: int = 300) -> list[str]:
    """Somebody else, who attaches to every accepted task from the first and must be told the same story; what differs."""
    differs: list[str] = []
    ids = [task.id for task in tasks.values() if task.accepted]
    connection = websocket.create_connection(url, timeout=20)
    try:
        for start in range(0, len(ids), most):
            chunk = ids[start : start + most]
            for name in chunk:
                connection.send(json.dumps({"id": name, "attach": 0}))
            for name, story in _stories(connection, chunk).items():
                differs += _difference(tasks[name], story)
    finally:
        connection.close()
    return differs


def _stories(connection: websocket.WebSocket, ids: list[str]) -> dict[str, list[Any]]:
    stories: dict[str, list[Any]] = {name: [] for name in ids}
    open_ids = set(ids)
    while open_ids:
        message = json.loads(connection.recv())
        stories[message["id"]].append(message)
        if message.get("event", "error") in FINAL or "event" not in message:
            open_ids.discard(message["id"])
    return stories


def _difference(task: Told, story: list[Any]) -> list[str]:
    told = [(message.get("seq"), message.get("event")) for message in story]
    same = (told[-1:] if task.message.get("events") == "final" else told) == task.events
    if not same or story[-1] != task.final:
        return [f"{task.id}: a witness was told {told}, the client {task.events}"]
    return []
