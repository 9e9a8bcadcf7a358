"""What was accepted, what was said of it, and what its result was: the interface that dispatch speaks to, and the journal in memory.

`commit` takes all that happened in one turn and completes later, in the order of the calls; nothing of a batch is shown to anybody
before it is complete. Reading may block the greenlet that asks. The journal on the disk is `app/durable.py`; what the records lead to is
decided in `app/dispatch.py`.
"""

import enum
import operator
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from app import wire
from app.errors import HandoffError
from app.messages import FINAL_STATES, State, accepted_line
from app.task import Key, Task, describe

KEPT_TASKS = 10_000
KEPT_BYTES = 32 * 1024 * 1024
KEPT_FOR = 24 * 3600.0

LOOKED_AT = 10_000
"""Tasks that one search looks at; it says where the next goes on."""


class Kind(enum.Enum):
    """What a record says."""

    ACCEPT = "accept"
    """A task was submitted; refused as a duplicate where its key is known."""
    DISPATCH = "dispatch"
    """It is about to be sent to a worker: `link` says which."""
    MOVE = "move"
    """It went back to the queue, or waits for its time."""
    EVENT = "event"
    """Something was said of it: `seq`, `line`, and whether it is the `final` one."""
    NOTE = "note"
    """Nothing to keep, but something that must not overtake what was recorded before it: `link` is to be told that its line was seen."""


Record = tuple[Kind, Task | None, int, bytes, bool, Any]
"""One thing that happened: its kind, the task, and for an EVENT its number, its line, whether it is the final one, and the connection
that is to be told once it is kept (a NOTE has that alone, a DISPATCH the link). A plain tuple: there are three for every task."""

Refused = Mapping[Key, HandoffError | None]
"""The tasks of a commit that were not accepted, with the reason: None where the key was known already."""

ALL_ACCEPTED: Refused = MappingProxyType({})

Said = tuple[int, bytes, bool]
"""An event as it was said: its number, its line, whether it is the final one."""


Unfinished = tuple[Task, str]
"""A task that an earlier process has left, and the label of the worker to which it was dispatched (empty: to none)."""


class Wanted(NamedTuple):
    """Which of the owner's tasks are asked for: those before this order, in one of these states (any of them, where there is none), of
    this function, whose id begins so; `args`: they are told too."""

    before: int = 1 << 62
    states: frozenset[State] = frozenset()
    function: str = ""
    id: str = ""
    args: bool = False

    @property
    def final_states(self) -> list[str]:
        """By name."""
        return sorted(state.value for state in self.states & FINAL_STATES)

    @property
    def unfinished(self) -> bool:
        """Whether tasks are asked for that are not over; in which of those states one is, is known better in memory."""
        return not self.states <= FINAL_STATES

    def wants(self, entry: Mapping[str, Any]) -> bool:
        """Whether this task is asked for, by its entry in a list."""
        named = not self.function or entry["function"] == self.function
        return named and (not self.states or State(entry["state"]) in self.states) and entry["id"].startswith(self.id)


ANY = Wanted()


class Listed(NamedTuple):
    """Entries, newest first; where there may be more, they come before the order `before`."""

    entries: list[dict[str, Any]]
    before: int | None = None


class Stored(NamedTuple):
    """A task as the journal has it; `final`: it is over. `events` are those after the asked-for number, as far as they were asked for."""

    function: str
    args: bytes
    final: bool
    events: list[Said]


class Journal(Protocol):
    """Keeps tasks under (owner, id). `id` names this journal to the workers, so that a gateway that comes back can claim its tasks.

    `first_order`: the orders of new tasks begin there.
    """

    id: str
    first_order: int

    @property
    def full(self) -> bool:
        """Whether nothing can be accepted, nor sent to a worker, for want of space."""

    def now(self) -> float:
        """Seconds by the journal's clock: it goes on while no process runs, and is not set with the machine's clock."""

    def commit(self, records: Sequence[Record], done: Callable[[Refused], None]) -> None:
        """Keep them all. `done` is called once, now or later, with the tasks whose ACCEPT was refused; the other records of these are
        void, in this batch and in those after it. What a task is (its place, its attempt) is kept as it is at the call."""

    def read(self, key: Key, after: int = 0, most: int = 1000) -> Stored | None:
        """What is known of one task, with at most `most` of the events after number `after`. May block."""

    def recent(self, owner: str, limit: int, wanted: Wanted = ANY) -> Listed:
        """The owner's tasks, newest first, as `list` shows them. It looks at no more than `LOOKED_AT` tasks. May block."""

    def unfinished(self) -> list[Unfinished]:
        """What an earlier process has left, in the order in which it was accepted. May block."""

    def on_room(self, call: Callable[[], None]) -> None:
        """Have this called, in the hub, when it is no longer `full`."""

    def close(self) -> None:
        """Complete what was begun, and let go of the journal. May block."""


class _Entry:
    """A task that is not over."""

    __slots__ = ("events", "size", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.events: list[Said] = []
        self.size = len(task.args)


_Finished = tuple[str, str, str, bytes, str, int, int, float, int, float, tuple[Said, ...]]
"""A task that is over: owner, id, function, args, state, last event, attempt, when it was accepted, order, its end, events. Atoms in
tuples: smaller than the task was, and nothing that the collector would look at again."""


class MemoryJournal:
    """A journal that lasts as long as its process. Finished tasks are kept for `KEPT_FOR`, within `KEPT_TASKS` and `KEPT_BYTES`."""

    first_order = 1
    full = False
    now = staticmethod(time.monotonic)

    def __init__(self, journal_id: str) -> None:
        self.id = journal_id
        self._entries: dict[Key, _Entry | _Finished] = {}
        self._finished: deque[tuple[float, int, Key]] = deque()
        self._finished_size = 0

    def commit(self, records: Sequence[Record], done: Callable[[Refused], None]) -> None:
        """As `Journal.commit`; `done` is called before this returns."""
        entries = self._entries
        known: dict[Key, HandoffError | None] = {}
        for kind, task, seq, line, final, _ in records:
            if task is None or task.key in known:
                continue
            if kind is Kind.EVENT:
                entry = entries[task.key]
                if not isinstance(entry, _Entry) or entry.task is not task:
                    continue  # refused in a batch before, which whoever recorded this had not heard of yet
                entry.events.append((seq, line, final))
                entry.size += len(line)
                if final:
                    self._finish(task, entry)
            elif kind is Kind.ACCEPT:
                if task.key in entries:
                    known[task.key] = None
                else:
                    entries[task.key] = _Entry(task)
        done(known or ALL_ACCEPTED)
        self._forget()

    def read(self, key: Key, after: int = 0, most: int = 1000) -> Stored | None:
        """As `Journal.read`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        events: Sequence[Said]
        if isinstance(entry, _Entry):
            function, args, events = entry.task.function, entry.task.args, entry.events
        else:
            function, args, events = entry[2], entry[3], entry[10]
        if after < 1 and (not events or events[0][0] != 1):  # of a task whose client wanted the end alone
            events = [(1, accepted_line(key.partition(" ")[0], 0), False), *events]
        start = bisect_right(events, after, key=_number)
        return Stored(function, args, not isinstance(entry, _Entry), list(events[start : start + most]))

    def recent(self, owner: str, limit: int, wanted: Wanted = ANY) -> Listed:
        """As `Journal.recent`."""
        found: list[dict[str, Any]] = []
        for looked_at, entry in enumerate(self._of(owner, wanted)):
            if len(found) == limit or looked_at == LOOKED_AT:
                return Listed(found, entry["order"] + 1)
            if wanted.wants(entry):
                found.append(entry)
        return Listed(found)

    def unfinished(self) -> list[Unfinished]:
        """Nobody has left anything here."""
        return []

    def on_room(self, call: Callable[[], None]) -> None:
        """It is never full."""

    def close(self) -> None:
        """It goes with its process."""

    def _of(self, owner: str, wanted: Wanted) -> Iterator[dict[str, Any]]:
        for entry in reversed(self._entries.values()):
            if isinstance(entry, _Entry):
                if entry.task.owner == owner and entry.task.order < wanted.before:
                    yield _with_args(entry.task.describe(), entry.task.args, wanted)
            elif entry[0] == owner and entry[8] < wanted.before:
                yield _with_args(describe(entry[1], entry[2], *entry[4:10]), entry[3], wanted)

    def _finish(self, task: Task, entry: _Entry) -> None:
        state, said = task.state.value, tuple(entry.events)
        times = (task.accepted_at, task.order, time.time())
        self._entries[task.key] = (task.owner, task.id, task.function, task.args, state, task.seq, task.attempt, *times, said)
        self._finished.append((time.monotonic(), entry.size, task.key))
        self._finished_size += entry.size

    def _forget(self) -> None:
        finished, oldest = self._finished, time.monotonic() - KEPT_FOR
        while finished and (len(finished) > KEPT_TASKS or self._finished_size > KEPT_BYTES or finished[0][0] < oldest):
            _, size, key = finished.popleft()
            self._finished_size -= size
            del self._entries[key]


def _with_args(entry: dict[str, Any], args: bytes, wanted: Wanted) -> dict[str, Any]:
    return {**entry, "args": wire.decode(args)} if wanted.args else entry


_number = operator.itemgetter(0)
