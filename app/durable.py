"""The journal on the disk: which commits go into one transaction, and who is told when it is complete. In the hub.

One owner, by a lock file. One group of commits is under way in the thread that writes (`app/scribe.py`), another gathers here meanwhile: so
many share one fsync as came in its time. Tasks that are not durable are kept in memory.

    commit ─▶ gathering ─▶ under way (BEGIN … COMMIT, fsync) ─▶ done, in the order of the calls
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gevent

from app.errors import HandoffError
from app.holdings import lock
from app.journal import ALL_ACCEPTED, ANY, Kind, Listed, MemoryJournal, Record, Refused, Stored, Unfinished, Wanted
from app.scribe import Scribe
from app.tables import Row, change_row, task_row
from app.task import Key, Task

log = logging.getLogger(__name__)


class _Batch(NamedTuple):
    """One commit: what of it is not for the disk, the new tasks, and who waits for it."""

    volatile: list[Record]
    accepted: list[Task]
    done: Callable[[Refused], None]


class _Group:
    """Commits that share a transaction (a `scribe.Page`). A task that is new here is written as it stands at the last commit that touched
    it. Once it is under way, only the scribe touches the rows."""

    __slots__ = ("_changes", "_events", "_tasks", "batches")

    def __init__(self) -> None:
        self.batches: list[_Batch] = []
        self._tasks: dict[int, Row] = {}
        self._changes: dict[int, Row] = {}
        self._events: list[Row] = []

    @property
    def for_the_disk(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._tasks or self._changes or self._events)

    def add(self, records: Sequence[Record], done: Callable[[Refused], None], now: float) -> None:
        """Another commit: it holds all that happened in its turn, so that its tasks stand as it says. `now`: by the journal's clock."""
        batch = _Batch([], [], done)
        self.batches.append(batch)
        tasks, events = self._tasks, self._events
        ahead = time.time() - now
        for record in records:
            kind, task, seq, line, final, _ = record
            if task is None:
                continue
            if not task.durable:
                batch.volatile.append(record)
                continue
            order = task.order
            if kind is Kind.EVENT:
                if seq > 1:  # `accepted` is made again from the task
                    events.append((order, seq, final, str(line, "utf-8", "replace")))
                if not final:
                    continue
            elif kind is Kind.ACCEPT:
                batch.accepted.append(task)
                tasks[order] = ()
            if order in tasks:
                tasks[order] = task_row(task, ahead, now if final else None)
            else:
                self._changes[order] = change_row(task, now if final else None)

    def drop(self, orders: frozenset[int]) -> None:
        """What was recorded of these tasks is void: they were refused."""
        self._events = [row for row in self._events if row[0] not in orders]
        for order in orders & self._changes.keys():
            del self._changes[order]

    def new(self) -> list[Row]:
        """As `Page.new`."""
        return list(self._tasks.values())

    def changes(self) -> list[Row]:
        """As `Page.changes`."""
        return list(self._changes.values())

    def events(self) -> list[Row]:
        """As `Page.events`."""
        return self._events

    def refuse(self) -> frozenset[int]:
        """As `Page.refuse`."""
        refused = frozenset(self._tasks)
        self._tasks = {}
        self.drop(refused)
        return refused


class DurableJournal:
    """As `Journal`. `durability`: `full` survives a power cut where the disk honours fsync, `normal` may lose the last commits then.
    `transactions` counts those that were written, `commits` and `accepted` (tasks) what was in them."""

    def __init__(self, data_dir: Path, durability: str, retention: float, patience: float) -> None:
        """Open the journal in `data_dir`; blocks this greenlet for at most `patience` seconds while another process has it. `retention`:
        seconds for which finished tasks are kept. Raises `SettingsError` where it cannot be opened."""
        self._lock = lock(data_dir / "journal.lock", patience)
        self._room_wanted: list[Callable[[], None]] = []
        self._scribe = Scribe(data_dir, durability, retention, self._has_room)
        self._store = self._scribe.store
        self._memory = MemoryJournal("")
        self._under_way: _Group | None = None
        self._gathering = _Group()
        self._closed = False
        self.transactions = self.commits = self.accepted = 0
        self.id, self.first_order, self.now = self._store.id, self._store.first_order, self._store.now

    @property
    def full(self) -> bool:
        """As `Journal.full`."""
        return self._scribe.full

    def commit(self, records: Sequence[Record], done: Callable[[Refused], None]) -> None:
        """As `Journal.commit`."""
        if self._closed:  # what still comes then is as if it came too late
            return
        self._gathering.add(records, done, self.now())
        if self._under_way is None:
            self._send()

    def _send(self) -> None:
        """Let the gathered group go on its way; what is not for the disk waits for nothing but its turn."""
        while self._gathering.batches:
            group = self._under_way = self._gathering
            self._gathering = _Group()
            if group.for_the_disk:
                self._scribe.write(group, partial(self._written, group))
                return
            self._complete(group, _NOBODY, None)
        self._under_way = None

    def _written(self, group: _Group, refused: frozenset[int], why: HandoffError | None) -> None:
        self.transactions += 1
        self.commits += len(group.batches)
        self.accepted += len(group.new())
        if refused:
            self._gathering.drop(refused)
        self._complete(group, refused, why)
        self._send()

    def _complete(self, group: _Group, refused: frozenset[int], why: HandoffError | None) -> None:
        for volatile, accepted, done in group.batches:
            of_these: Refused = {task.key: why for task in accepted if task.order in refused} if refused else ALL_ACCEPTED
            try:
                if volatile:
                    self._memory.commit(volatile, partial(_both, done, of_these))
                else:
                    done(of_these)
            except Exception:  # the barrier of one commit: those after it are told all the same
                log.exception("commit-failed")

    def read(self, key: Key, after: int = 0, most: int = 1000) -> Stored | None:
        """As `Journal.read`."""
        return self._memory.read(key, after, most) or self._scribe.ask(partial(self._store.read, key, after, most))

    def recent(self, owner: str, limit: int, wanted: Wanted = ANY) -> Listed:
        """As `Journal.recent`."""
        on_disk: Listed = self._scribe.ask(partial(self._store.recent, owner, limit, wanted, time.time() - self.now()))
        volatile = self._memory.recent(owner, limit, wanted)
        return _merged(on_disk, volatile, limit) if volatile.entries else on_disk

    def unfinished(self) -> list[Unfinished]:
        """As `Journal.unfinished`."""
        found: list[Unfinished] = self._scribe.ask(partial(self._store.unfinished, time.time() - self.now()))
        return found

    def on_room(self, call: Callable[[], None]) -> None:
        """As `Journal.on_room`."""
        self._room_wanted.append(call)

    def _has_room(self) -> None:
        for call in self._room_wanted:
            call()

    def close(self) -> None:
        """As `Journal.close`; once is enough."""
        if self._closed:
            return
        while self._under_way is not None and not self.full:
            gevent.sleep(0.002)
        self._closed = True
        self._scribe.close()
        os.close(self._lock)
        log.info("journal-closed: %d tasks in %d commits were written in %d transactions", self.accepted, self.commits, self.transactions)


def _merged(one: Listed, other: Listed, limit: int) -> Listed:
    """Where one of them has looked less far, what the other found beyond that is left for the next search."""
    floor = max((found.before for found in (one, other) if found.before is not None), default=0)
    entries = sorted((entry for entry in [*one.entries, *other.entries] if entry["order"] >= floor), key=lambda entry: -entry["order"])
    if len(entries) > limit:
        return Listed(entries[:limit], entries[limit - 1]["order"])
    return Listed(entries, floor or None)


def _both(done: Callable[[Refused], None], on_disk: Refused, in_memory: Refused) -> None:
    done({**on_disk, **in_memory} if on_disk else in_memory)


_NOBODY: frozenset[int] = frozenset()
