"""The journal's file: what is written and read in one SQLite database, by one connection, in the thread that opened it.

A transaction is one row in a log, and one statement: few pages, and so it is short, however much is in it. Later, and many at once, what is
in the log is brought into the tables (`app/tables.py`): of a task that has ended by then, that is one row and its events. A statement there
writes up to `MOST` rows, because a thread beside a busy event loop waits for the interpreter once a statement.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import ujson

from app import meta
from app.errors import SettingsError
from app.holdings import FOLD_AT, fold_at, on_disk
from app.journal import Listed, Stored, Unfinished, Wanted
from app.messages import accepted_line
from app.pending import MOST, Applying, Pending, as_text, chunks, without
from app.searching import search
from app.tables import KNOWN, LOG_IF_NEW, SCHEMA, UNFINISHED, VERSION, Row, power_of_two, task_of, with_rows
from app.task import Key

APPLY_AT = 8000
"""Rows in the log past which they begin to be brought into the tables."""

SWEPT_AT_ONCE = 500
_CACHE_KIB = 16 * 1024
_CONFIRM = {"full": "FULL", "normal": "NORMAL"}


class Store:
    """An open journal file. `id` names the journal; `base` is what its clock is ahead of CLOCK_BOOTTIME, in seconds."""

    def __init__(self, path: Path, durability: str, retention: float) -> None:
        """Open it, or make it. Raises `SettingsError` where it cannot be used, `sqlite3.Error` where the disk is full or fails."""
        self._path = path
        self._retention = retention
        self._confirm = _CONFIRM[durability]
        self._pending = Pending()
        self._applying: Applying | None = None
        self._swept_to = 0
        self._sweep_at = 0.0
        self._unfolded = self._changes_folded = 0
        self._fold_at = fold_at(path.parent)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
        os.chmod(path, 0o600)
        try:
            self._open(path)
        except BaseException:
            self._db.close()  # or whoever tries again would find it locked
            raise

    def _open(self, path: Path) -> None:
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_BUSY):
                raise SettingsError(f"--data-dir: {path} cannot be used as a journal: {error}; move it away to begin a new one") from None
            raise
        self.id = meta.name(self._db)
        self.base = meta.clock(self._db)
        self.apply()
        self.fold()  # what an earlier process wrote before a failed fsync is written anew
        (last,) = self._db.execute("SELECT coalesce(max(n), 0) FROM tasks").fetchone()
        self.first_order: int = last + 1

    def _prepare(self) -> None:
        run = self._db.execute
        run("PRAGMA locking_mode=EXCLUSIVE")  # before WAL: its index is then in memory, and nobody else can open the file
        run("PRAGMA journal_mode=WAL")
        run(f"PRAGMA synchronous={self._confirm}")
        run(f"PRAGMA cache_size=-{_CACHE_KIB}")
        run("PRAGMA wal_autocheckpoint=0")  # `settle` does it instead
        (version,) = run("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise SettingsError("--data-dir: its journal was made by a later version; run that one, or move the journal away")
        if version < VERSION:
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
        for (rows,) in run("SELECT rows FROM log ORDER BY number"):
            self._pending.add(*ujson.loads(rows))

    def now(self) -> float:
        """As `Journal.now`."""
        return self.base + time.clock_gettime(time.CLOCK_BOOTTIME)

    def write(self, tasks: Sequence[Row], changes: Sequence[Row], events: Sequence[Row]) -> frozenset[int]:
        """One transaction, into the log; the orders of the tasks that were not taken, because their keys are known: nothing is written of
        these. Raises `sqlite3.Error`, and then nothing is written."""
        refused = self._log(tasks, changes, events)
        self._pending.add(*without(refused, tasks, changes, events))
        return refused

    def _log(self, tasks: Sequence[Row], changes: Sequence[Row], events: Sequence[Row]) -> frozenset[int]:
        if self._log_if_new(tasks, changes, events):
            return _NOBODY
        refused = self._known(tasks)
        left = without(refused, tasks, changes, events)
        if not any(left):
            return refused
        text = as_text(*left)
        self._db.execute("INSERT INTO log(rows) VALUES(?)", (text,))
        self._unfolded += on_disk(text)
        return refused

    def _log_if_new(self, tasks: Sequence[Row], changes: Sequence[Row], events: Sequence[Row]) -> bool:
        """In one statement, whether the keys are new and the row; False, and nothing is written, where one may be known."""
        keys = {row[1] for row in tasks}
        if len(keys) < len(tasks) or len(keys) > MOST or any(map(self._waits, keys)):
            return False
        size = power_of_two(len(keys))
        text = as_text(tasks, changes, events)
        values = [text, *keys, *[None] * (size - len(keys))]
        if self._db.execute(with_rows(LOG_IF_NEW, 1, size), values).rowcount != 1:
            return False
        self._unfolded += on_disk(text)
        return True

    def _waits(self, key: Key) -> bool:
        """Whether a task of this key is in the log, and perhaps not in the tables."""
        return key in self._pending.keys or (self._applying is not None and key in self._applying.pending.keys)

    def _known(self, tasks: Sequence[Row]) -> frozenset[int]:
        keys = {row[1]: row[0] for row in reversed(tasks)}  # of two of one key, the first counts
        known = {row[0] for row in tasks if keys[row[1]] != row[0] or self._waits(row[1])}
        for chunk in chunks([(key,) for key in keys]):
            known.update(keys[key] for (key,) in self._run(KNOWN, 1, chunk))
        return frozenset(known)

    def _turn_over(self) -> Applying:
        """What is in the log by now begins to go into the tables."""
        (upto,) = self._db.execute("SELECT coalesce(max(number), 0) FROM log").fetchone()
        pending, self._pending = self._pending, Pending()
        return Applying(pending, upto, pending.pieces(), 0)

    def apply(self) -> None:
        """Bring all that is in the log into the tables, as it stands by now. Raises `sqlite3.Error`, and then it is in the log still."""
        if self._applying is None and not self._pending.size and self.now() < self._sweep_at:
            return
        with self._unconfirmed():
            while self._applying is not None or self._pending.size:
                self._apply_rest()
            with self._transaction():
                self._sweep(SWEPT_AT_ONCE)

    @contextmanager
    def _unconfirmed(self) -> Iterator[None]:
        """Without fsync: where what is done here is lost in a power cut, the log is there, and is applied again."""
        if self._confirm == "FULL":
            self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            if self._confirm == "FULL":
                self._db.execute("PRAGMA synchronous=FULL")

    def _apply_rest(self) -> None:
        applying = self._applying = self._applying or self._turn_over()
        with self._transaction():
            for number in range(applying.done, len(applying.pieces)):
                self._apply_piece(applying, number)
        self._applying = None

    def _apply_piece(self, applying: Applying, number: int) -> None:
        """Written twice, where the process is killed before all of them are, it comes to the same. With the last, the log is emptied."""
        self._run(*applying.pieces[number])
        if number == len(applying.pieces) - 1:
            self._sweep(SWEPT_AT_ONCE + 2 * len(applying.pending.keys))  # more than came, so that it keeps up
            self._db.execute("DELETE FROM log WHERE number <= ?", (applying.upto,))

    def settle(self) -> None:
        """After a transaction, when all have been told: bring a piece of what is in the log into the tables, and keep SQLite's own log
        short. It would do that itself, but say nothing of an fsync that fails there. Raises `sqlite3.Error`; what was written is safe."""
        self._keep_up()
        if self._unfolded > self._fold_at:
            if self._fold_at == FOLD_AT:
                self.apply()
            self._checkpoint()

    def rest(self) -> None:
        """There is nothing else to do: bring everything up to date, and keep SQLite's own log short, to which forgetting adds too.
        Raises `sqlite3.Error`; what was written is safe."""
        self.apply()
        if self._db.total_changes != self._changes_folded:
            self._checkpoint()

    def _keep_up(self) -> None:
        """One piece, or more where more comes than goes."""
        while self._applying is not None or self._pending.size > APPLY_AT:
            applying = self._applying = self._applying or self._turn_over()
            with self._unconfirmed(), self._transaction():
                self._apply_piece(applying, applying.done)
            self._applying = applying.after_one()
            if self._pending.size <= APPLY_AT:
                return

    def _checkpoint(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._unfolded, self._changes_folded = 0, self._db.total_changes
        self._fold_at = fold_at(self._path)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _run(self, statement: str, columns: int, rows: Sequence[Row]) -> sqlite3.Cursor:
        """The number of rows in a statement is a power of two, so that there are few of them to prepare."""
        size = power_of_two(len(rows))
        values = [*chain.from_iterable(rows), *[None] * (columns * (size - len(rows)))]
        return self._db.execute(with_rows(statement, columns, size), values)

    def read(self, key: Key, after: int, most: int) -> Stored | None:
        """As `Journal.read`."""
        found = self._find(key)
        if self._waits(key) or (found is not None and self._changes(found[0])):
            self.apply()
            found = self._find(key)
        if found is None:
            return None
        n, function, args, final, position = found
        first = [(1, accepted_line(key.partition(" ")[0], position), False)] if after < 1 else []
        events = self._db.execute(
            "SELECT seq, line, final FROM events WHERE n=? AND seq>? ORDER BY seq LIMIT ?", (n, after, most - len(first))
        )
        return Stored(function, args.encode(), bool(final), [*first, *((seq, line.encode(), bool(last)) for seq, line, last in events)])

    def _find(self, key: Key) -> Any:
        return self._db.execute("SELECT n, function, args, finished IS NOT NULL, position FROM tasks WHERE key=?", (key,)).fetchone()

    def _changes(self, order: int) -> bool:
        """Whether the log has more of this task than the tables."""
        return self._pending.has(order) or (self._applying is not None and self._applying.pending.has(order))

    def recent(self, owner: str, limit: int, wanted: Wanted, ahead: float) -> Listed:
        """As `Journal.recent`; where a task stands that is not over, is known better in memory."""
        self.apply()
        return search(self._db, owner, limit, wanted, ahead)

    def unfinished(self, ahead: float) -> list[Unfinished]:
        """As `Journal.unfinished`."""
        return [task_of(row, ahead) for row in self._db.execute(UNFINISHED)]

    def _sweep(self, most: int) -> None:
        """Forget what was finished long ago: walk through the tasks as they were accepted, some at a time, to those that are too young."""
        now = self.now()
        if now < self._sweep_at:
            return
        last, accepted = self._db.execute(
            "SELECT max(n), max(accepted) FROM (SELECT n, accepted FROM tasks WHERE n>? ORDER BY n LIMIT ?)",
            (self._swept_to, most),
        ).fetchone()
        cutoff = now - self._retention
        if last is not None:
            bounds = (self._swept_to, last, cutoff)
            self._db.execute("DELETE FROM events WHERE n IN (SELECT n FROM tasks WHERE n>? AND n<=? AND finished<?)", bounds)
            self._db.execute("DELETE FROM tasks WHERE n>? AND n<=? AND finished<?", bounds)
            self._swept_to = last
        if last is None or accepted >= cutoff:
            self._swept_to = 0
            self._sweep_at = now + min(max(self._retention / 100, 0.2), 60.0)

    def size(self) -> int:
        """Bytes that the file has once it is folded."""
        return int(self._db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0])

    def fold(self) -> None:
        """Write what is in SQLite's own log into the file, and empty that log. Raises `sqlite3.Error`."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._unfolded, self._changes_folded = 0, self._db.total_changes

    def close(self) -> None:
        """Close the file, with everything in its tables; where that cannot be, it is in the log."""
        try:
            self.apply()
        finally:
            self._db.close()


_NOBODY: frozenset[int] = frozenset()
