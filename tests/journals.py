"""The journals that there are, for the suite that each of them passes, and one that takes its time, as a disk does.

To add an engine: a function here that opens one, in `ENGINES`.
"""

import itertools
import random
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult

from app.durable import DurableJournal
from app.journal import ANY, Journal, Kind, Listed, MemoryJournal, Record, Refused, Stored, Unfinished, Wanted
from app.messages import Event, Submit, accepted_line, event_line
from app.task import Key, Task

LONGEST_DELAY = 0.003
"""Seconds that a delayed commit takes at most."""


class DelayedJournal:
    """Any journal, whose commits complete later: after a random while, in the order of the calls, and often several of them at once."""

    def __init__(self, inner: Journal, seed: int = 0, longest: float = LONGEST_DELAY) -> None:
        self.id = inner.id
        self.first_order = inner.first_order
        self.full = inner.full
        self.now = inner.now
        self.unfinished: Callable[[], list[Unfinished]] = inner.unfinished
        self.on_room = inner.on_room
        self.close = inner.close
        self._inner = inner
        self._random = random.Random(seed)
        self._longest = longest
        self._pending: deque[tuple[Sequence[Record], Callable[[Refused], None]]] = deque()
        self._timer: Any = None

    def commit(self, records: Sequence[Record], done: Callable[[Refused], None]) -> None:
        """As `Journal.commit`; nothing is kept, and nothing can be read, before it is complete."""
        self._pending.append((tuple(records), done))
        if self._timer is None:
            self._start()

    def read(self, key: Key, after: int = 0, most: int = 1000) -> Stored | None:
        """As `Journal.read`; takes a moment now and then."""
        if self._random.random() < 0.3:
            gevent.sleep(0)
        return self._inner.read(key, after, most)

    def recent(self, owner: str, limit: int, wanted: Wanted = ANY) -> Listed:
        """As `Journal.recent`."""
        return self._inner.recent(owner, limit, wanted)

    def _start(self) -> None:
        self._timer = gevent.get_hub().loop.timer(self._random.uniform(0, self._longest))
        self._timer.start(self._complete)

    def _complete(self) -> None:
        """A group commit: some of those that wait, the oldest first; what `done` leads to may be the next commit."""
        self._timer.close()
        self._timer = None
        for _ in range(self._random.randint(1, len(self._pending))):
            records, done = self._pending.popleft()
            self._inner.commit(records, done)
        if self._pending and self._timer is None:
            self._start()


@contextmanager
def open_memory(path: Path) -> Iterator[Journal]:
    """Nothing on the disk."""
    yield MemoryJournal("journal")


@contextmanager
def open_delayed(path: Path) -> Iterator[Journal]:
    """Memory, later."""
    yield DelayedJournal(MemoryJournal("journal"), seed=random.randrange(1 << 30))


@contextmanager
def open_durable(path: Path) -> Iterator[DurableJournal]:
    """On the disk, in a directory of its own."""
    with tempfile.TemporaryDirectory() as room:
        journal = DurableJournal(Path(room), "normal", 3600.0, 0.0)
        yield journal
        journal.close()


ENGINES: dict[str, Callable[[Path], AbstractContextManager[Journal]]] = {
    "memory": open_memory,
    "delayed": open_delayed,
    "durable": open_durable,
}
_next_order = itertools.count(1).__next__


# Tasks and records as dispatch makes them.


def make_task(task_id: str, owner: str = "", function: str = "echo", args: bytes = b"{}", final_only: bool = False) -> Task:
    """A task that was just submitted."""
    return Task(owner, owner, Submit(task_id, function, None, final_only), args, _next_order())


def accept(task: Task) -> Record:
    """It was submitted."""
    return (Kind.ACCEPT, task, 0, b"", False, None)


def accepted(task: Task) -> Record:
    """What is said of that."""
    return (Kind.EVENT, task, 1, accepted_line(task.id, task.position), False, None)


def said(task: Task, seq: int, event: Event = Event.PROGRESS, final: bool = False, **fields: Any) -> Record:
    """Something was said of it."""
    return (Kind.EVENT, task, seq, event_line(task.id, event, seq, 1, **fields), final, None)


def ended(task: Task, seq: int, event: Event = Event.SUCCEEDED, **fields: Any) -> Record:
    """The last that is said of it."""
    return said(task, seq, event, True, **fields)


def commit(journal: Journal, *records: Record) -> frozenset[Key]:
    """Commit, and wait until that is complete; the keys that were known already."""
    complete: AsyncResult[Refused] = AsyncResult()
    journal.commit(records, complete.set)
    return frozenset(complete.get(timeout=10))
