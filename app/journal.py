"""What was accepted, what was said of it, and what its result was: the interface that dispatch speaks to, and the journal in memory.

`commit` takes all that happened in one turn and completes later, in the order of the calls; nothing of a batch is shown to anybody
before it is complete. Reading may block the greenlet that asks. What the records lead to is decided in `app/dispatch.py`.
"""

import enum
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from app.messages import accepted_line
from app.task import Key, Task

KEPT_TASKS = 10_000
KEPT_BYTES = 32 * 1024 * 1024
KEPT_FOR = 24 * 3600.0


class Kind(enum.Enum):
    """What a record says."""

    ACCEPT = "accept"
    """A task was submitted; refused as a duplicate where its key is known."""
    DISPATCH = "dispatch"
    """It is about to be sent to a worker: `link` says which."""
    EVENT = "event"
    """Something was said of it: `seq`, `line`, and whether it is the `final` one."""
    NOTE = "note"
    """Nothing to keep, but something that must not overtake what was recorded before it: `link` is to be told that its line was seen."""


class Record(NamedTuple):
    """One thing that happened, in the order in which it did."""

    kind: Kind
    task: Task | None
    seq: int = 0
    line: bytes = b""
    final: bool = False
    link: Any = None


class Said(NamedTuple):
    """An event as it was said."""

    seq: int
    line: bytes
    final: bool = False


class Stored(NamedTuple):
    """A task as the journal has it; `final`: it is over. `events` are those after the asked-for number, as far as they were asked for."""

    function: str
    args: bytes
    state: str
    final: bool
    events: list["Said"]


class Journal(Protocol):
    """Keeps tasks under (owner, id). `id` names this journal to the workers, so that a gateway that comes back can claim its tasks."""

    id: str

    def commit(self, records: Sequence[Record], done: Callable[[frozenset[Key]], None]) -> None:
        """Keep them all. `done` is called once, now or later, with the keys whose ACCEPT was refused because they were known already;
        the other records of those keys in the batch are void."""

    def read(self, key: Key, after: int = 0, most: int = 1000) -> Stored | None:
        """What is known of one task, with at most `most` of the events after number `after`. May block."""

    def recent(self, owner: str, limit: int) -> list[dict[str, Any]]:
        """The owner's tasks, newest first, as `list` shows them. May block."""


class _Entry:
    __slots__ = ("bytes", "events", "final_at", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.events: list[Said] = []
        self.bytes = len(task.args)
        self.final_at = 0.0


class MemoryJournal:
    """A journal that lasts as long as its process. Finished tasks are kept for `KEPT_FOR`, as far as `KEPT_TASKS` and `KEPT_BYTES`
    allow."""

    def __init__(self, journal_id: str) -> None:
        self.id = journal_id
        self._entries: dict[Key, _Entry] = {}
        self._finished: OrderedDict[Key, _Entry] = OrderedDict()
        self._finished_bytes = 0

    def commit(self, records: Sequence[Record], done: Callable[[frozenset[Key]], None]) -> None:
        """As `Journal.commit`; `done` is called before this returns."""
        known: set[Key] = set()
        for record in records:
            task = record.task
            if task is None or task.key in known:
                continue
            if record.kind is Kind.EVENT:
                self._say(task, record)
            elif record.kind is Kind.ACCEPT:
                if task.key in self._entries:
                    known.add(task.key)
                else:
                    self._entries[task.key] = _Entry(task)
        done(frozenset(known) if known else _NOTHING)

    def read(self, key: Key, after: int = 0, most: int = 1000) -> Stored | None:
        """As `Journal.read`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        events = entry.events
        if after < 1 and (not events or events[0].seq != 1):
            events = [Said(1, accepted_line(entry.task.id, 0)), *events]
        start = _first_after(events, after)
        task = entry.task
        return Stored(task.function, task.args, task.state.value, entry.final_at > 0, events[start : start + most])

    def recent(self, owner: str, limit: int) -> list[dict[str, Any]]:
        """As `Journal.recent`."""
        found = []
        for key, entry in reversed(self._entries.items()):
            if key[0] == owner:
                found.append(entry.task.describe())
                if len(found) >= limit:
                    break
        return found

    def _say(self, task: Task, record: Record) -> None:
        entry = self._entries.get(task.key)
        if entry is None:
            return
        entry.events.append(Said(record.seq, record.line, record.final))
        entry.bytes += len(record.line)
        if record.final:
            entry.final_at = time.monotonic()
            self._finished[task.key] = entry
            self._finished_bytes += entry.bytes
            self._forget()

    def _forget(self) -> None:
        oldest = time.monotonic() - KEPT_FOR
        while self._finished:
            key, entry = next(iter(self._finished.items()))
            if len(self._finished) <= KEPT_TASKS and self._finished_bytes <= KEPT_BYTES and entry.final_at > oldest:
                return
            del self._finished[key]
            del self._entries[key]
            self._finished_bytes -= entry.bytes


_NOTHING: frozenset[Key] = frozenset()


def _first_after(events: list[Said], after: int) -> int:
    """Where the events after number `after` begin."""
    low, high = 0, len(events)
    while low < high:
        middle = (low + high) // 2
        if events[middle].seq <= after:
            low = middle + 1
        else:
            high = middle
    return low
