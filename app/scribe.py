"""The thread that writes the journal: a native one, because SQLite blocks; it alone touches the file, after what it was given before.

What it has to tell goes to the hub in the order in which it happened. Where the disk is full, what runs is still written, in room that was
kept aside, and new tasks are refused; after any other error of the disk the process ends. What is written is decided in `app/durable.py`.
"""

import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gevent
from gevent.event import AsyncResult
from gevent.monkey import get_original

from app.child import EXIT_JOURNAL, flush
from app.errors import DiskFull, SettingsError, Unavailable
from app.holdings import Reserve
from app.store import Store
from app.tables import Row

log = logging.getLogger(__name__)

TIDY_EVERY = 1.0
"""Seconds between two looks at what else is to be done, and whether a full disk has room again."""

QUIET_FOR = 0.2
"""Seconds without a transaction after which there is time for what can wait."""

_start_native_thread = get_original("_thread", "start_new_thread")
_NativeQueue = get_original("queue", "SimpleQueue")
_Empty = get_original("queue", "Empty")


class Page(Protocol):
    """What goes into one transaction."""

    def new(self) -> Sequence[Row]:
        """The tasks that are accepted with it."""

    def changes(self) -> Sequence[Row]:
        """What changed of others."""

    def events(self) -> Sequence[Row]:
        """What was said."""

    def refuse(self) -> frozenset[int]:
        """Leave out the new tasks and what was recorded of them; the orders of these."""


class Scribe:
    """`full`: nothing new can be written; `on_room` is called when that is over. All methods are for the hub's thread."""

    def __init__(self, data_dir: Path, durability: str, retention: float, on_room: Callable[[], None]) -> None:
        """Open the journal; blocks this greenlet. Raises `SettingsError` where it cannot be opened."""
        self.full = False
        self._closed = False
        self._wrote_at = 0.0
        self._on_room = on_room
        self._path = data_dir / "journal.db"
        self._reserve = Reserve(data_dir / "journal.reserve")
        self._jobs: Any = _NativeQueue()
        self._told: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wake_hub: Any = gevent.get_hub().loop.async_()
        self._wake_hub.start(self._hear)
        opened: AsyncResult[Store] = AsyncResult()
        _start_native_thread(self._work, (partial(Store, self._path, durability, retention), opened))
        self.store = opened.get()

    def write(self, page: Page, done: Callable[[frozenset[int], DiskFull | None], None]) -> None:
        """Write it as one transaction; `done` is called with the orders of the new tasks that are not kept, and why: None where their
        keys were known."""
        self._jobs.put(partial(self._write, page, done))

    def ask(self, question: Callable[[], Any]) -> Any:
        """Have it answered in the thread, after what was written before; blocks this greenlet. Raises `Unavailable` once it is closed."""
        if self._closed:
            raise Unavailable("this gateway is leaving")
        answer: AsyncResult[Any] = AsyncResult()
        self._jobs.put(partial(self._answer, question, answer))
        return answer.get()

    def close(self) -> None:
        """Close the file and end the thread; blocks this greenlet."""
        closed: AsyncResult[None] = AsyncResult()
        self._closed = True  # nothing comes after this
        self._jobs.put(partial(self._answer, self.store.close, closed))
        try:
            closed.get()
        except DiskFull:
            log.warning("journal-full: it is closed as it is; what is in its log is read at the next start")
        self._jobs.put(None)
        self._wake_hub.close()

    def _hear(self) -> None:
        while self._told:
            call, args = self._told.popleft()
            call(*args)

    def _has_no_room(self) -> None:
        if not self.full:
            self.full = True
            log.error("disk-full: nothing is accepted until there is room for the journal again")

    def _has_room(self) -> None:
        self.full = False
        log.warning("disk-has-room: tasks are accepted again")
        self._on_room()

    def _try_again(self, job: Callable[[], None]) -> None:
        gevent.spawn_later(TIDY_EVERY, self._jobs.put, job)

    # In the thread.

    def _tell(self, call: Callable[..., None], *args: Any) -> None:
        self._told.append((call, args))
        self._wake_hub.send()

    def _work(self, open_store: Callable[[], Store], opened: Any) -> None:
        try:
            self._tell(opened.set, self._open(open_store))
        except BaseException as error:  # noqa: BLE001 - raised again by the greenlet that waits
            self._tell(opened.set_exception, error)
            return
        try:
            self._do_jobs()
        except BaseException:  # without this thread nothing would ever be accepted, nor said, again
            log.critical("journal-broken: this process ends", exc_info=True)
            flush()
            os._exit(EXIT_JOURNAL)

    def _do_jobs(self) -> None:
        tidy_at = time.monotonic() + TIDY_EVERY
        while (job := self._next(tidy_at)) is not None:
            job()
            if time.monotonic() >= tidy_at and not self._closed:
                self._tidy()
                tidy_at = time.monotonic() + TIDY_EVERY

    def _next(self, until: float) -> Callable[[], None] | None:
        try:
            job: Callable[[], None] | None = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
        except _Empty:
            return self._nothing
        return job

    def _nothing(self) -> None:
        """It is time to tidy."""

    def _open(self, open_store: Callable[[], Store]) -> Store:
        try:
            store = self._open_in_reserve(open_store)
        except sqlite3.Error as error:
            raise SettingsError(f"--data-dir: the journal cannot be opened: {error}") from None
        if not self._reserve.take():
            self._tell(self._has_no_room)
        return store

    def _open_in_reserve(self, open_store: Callable[[], Store]) -> Store:
        try:
            return open_store()
        except sqlite3.Error as error:
            if not _is_full(error):
                raise
        self._reserve.free()
        return open_store()

    def _write(self, page: Page, done: Callable[[frozenset[int], DiskFull | None], None]) -> None:
        if not self._reserve.taken:  # what is left of the room is for what runs
            self._write_what_runs(page, partial(done, page.refuse(), DiskFull()))
            return
        try:
            known = self.store.write(page.new(), page.changes(), page.events())
        except sqlite3.Error as error:
            self._end_unless_full(error)
            self._tell(self._has_no_room)
            self._write_what_runs(page, partial(done, page.refuse(), DiskFull()))
        else:
            self._tell(done, known, None)
            self._wrote_at = time.monotonic()
            self._settle()

    def _settle(self) -> None:
        """What is written is safe already, whatever comes of this."""
        try:
            self.store.settle()
        except sqlite3.Error as error:
            self._has_failed_to_apply(error)

    def _rest(self) -> None:
        """What is in the log already is safe, whatever comes of this."""
        try:
            self.store.rest()
        except sqlite3.Error as error:
            self._has_failed_to_apply(error)

    def _has_failed_to_apply(self, error: sqlite3.Error) -> None:
        self._end_unless_full(error)
        self._tell(self._has_no_room)
        self._reserve.free()
        self._apply_in_reserve()

    def _apply_in_reserve(self) -> None:
        """At once, before anything else takes the room: then SQLite's own log begins anew, and has room itself."""
        try:
            self._fold_if_it_fits()
            self.store.apply()
            self._fold_if_it_fits()
        except sqlite3.Error as error:
            self._end_unless_full(error)

    def _write_what_runs(self, page: Page, done: Callable[[], None]) -> None:
        """In the room that was kept aside, or as soon as there is some."""
        self._reserve.free()
        try:
            self._fold_if_it_fits()
            self.store.write((), page.changes(), page.events())
        except sqlite3.Error as error:
            self._end_unless_full(error)
            self._tell(self._try_again, partial(self._write_what_runs, page, done))
        else:
            self._tell(done)

    def _tidy(self) -> None:
        """Now and then: bring everything up to date where nothing else is to be done (else it goes along piece by piece), or see whether a
        full disk has room again; until then the room is for what runs alone."""
        if self._reserve.taken:
            if time.monotonic() - self._wrote_at > QUIET_FOR:
                self._rest()
            return
        try:
            self._fold_if_it_fits()
        except sqlite3.Error as error:
            self._end_unless_full(error)
        else:
            if self._reserve.take_again():
                self._tell(self._has_room)

    def _fold_if_it_fits(self) -> None:
        """Where it does not, the file would grow into the room that what runs is to be written in, and nothing would be gained."""
        if self._reserve.holds(self._path, self.store.size()):
            self.store.fold()

    def _answer(self, question: Callable[[], Any], answer: Any) -> None:
        try:
            self._tell(answer.set, question())
        except sqlite3.Error as error:
            self._end_unless_full(error)
            self._tell(answer.set_exception, DiskFull())

    def _end_unless_full(self, error: sqlite3.Error) -> None:
        """What the disk has taken is not known after an error of any other kind, and later commits may claim to have succeeded."""
        if _is_full(error):
            return
        log.critical("journal-broken: %s; this process ends, so that nothing is acknowledged falsely", error)
        flush()
        os._exit(EXIT_JOURNAL)


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
