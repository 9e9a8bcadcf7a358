"""The short form of one connection: lines answered in order, one after the other, by a greenlet that exists only while there are any."""

from collections import deque
from typing import Any

import gevent
from gevent.event import Event as Signal

from app.outbox import Outbox
from workers.attempt import Attempt
from workers.executor import Executor
from workers.registry import Function
from workers.sinks import FAR_BEHIND, ShortSink

MAX_QUEUED = 1000
"""Lines that wait for their turn; past it nothing more should be read."""


class ShortForm:
    """What one connection has asked in the short form, and not been told yet."""

    __slots__ = ("_done", "_executor", "_outbox", "_queue")

    def __init__(self, outbox: Outbox, executor: Executor) -> None:
        self._outbox = outbox
        self._executor = executor
        self._queue: deque[Attempt | bytes] = deque()
        self._done: Signal | None = None

    @property
    def idle(self) -> bool:
        """Whether every line has its answer."""
        return self._done is None

    @property
    def full(self) -> bool:
        """Whether reading should pause."""
        return len(self._queue) > MAX_QUEUED

    def add(self, spec: Function, raw: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run it when its turn comes, and a slot is free."""
        attempt = Attempt(spec, "", args, kwargs, ShortSink(self._executor.ends))
        attempt.final_only = True
        attempt.raw = raw
        self._enqueue(attempt)

    def answer(self, line: bytes) -> None:
        """Answer `line` after the answers to what came before it."""
        if self.idle:
            self._outbox.put(line + b"\n")
        else:
            self._queue.append(line)

    def wait(self) -> None:
        """Block until every line has its answer."""
        if self._done is not None:
            self._done.wait()

    def _enqueue(self, attempt: Attempt) -> None:
        self._queue.append(attempt)
        if self._done is None:
            self._done = Signal()
            gevent.spawn(self._work_through)

    def _work_through(self) -> None:
        while self._queue:
            following = self._queue.popleft()
            line = following if isinstance(following, bytes) else self._run(following)
            self._outbox.put(line + b"\n")
            self._outbox.wait_open(FAR_BEHIND)
        done, self._done = self._done, None
        if done is not None:
            done.set()

    def _run(self, attempt: Attempt) -> bytes:
        assert isinstance(attempt.sink, ShortSink)
        self._executor.slots.wait(attempt.spec)
        self._executor.start(attempt)
        return attempt.sink.wait_final()
