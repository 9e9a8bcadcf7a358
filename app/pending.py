"""What is in the journal's log and not in its tables yet: as it stands by now, so that of a task that has ended one row is written. In
memory; `app/store.py` writes it.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import ujson

from app.tables import EVENTS, INSERT, UPDATE, Row
from app.task import Key

MOST = 1024
"""Rows that one statement writes at most."""

Piece = tuple[str, int, Sequence[Row]]
"""A statement, the number of its columns, and at most `MOST` rows."""

_order = itemgetter(0)


class Pending:
    """What is in the log and not in the tables yet, as it stands by now. `keys` are those of the new tasks."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()
        self._tasks: dict[int, Row] = {}
        self._changes: dict[int, Row] = {}
        self._events: list[Row] = []
        self._told: set[int] = set()

    @property
    def size(self) -> int:
        """In rows."""
        return len(self._tasks) + len(self._changes) + len(self._events)

    def add(self, tasks: Sequence[Row], changes: Sequence[Row], events: Sequence[Row]) -> None:
        """One more transaction."""
        for row in tasks:
            self._tasks[row[0]] = row
            self.keys.add(row[1])
        for change in changes:
            new = self._tasks.get(change[0])
            if new is None:
                self._changes[change[0]] = change
            else:
                self._tasks[change[0]] = (*new[:3], *change[1:], *new[10:])
        self._events += events
        self._told.update(map(_order, events))

    def has(self, order: int) -> bool:
        """Whether there is anything of this task."""
        return order in self._tasks or order in self._changes or order in self._told

    def pieces(self) -> list[Piece]:
        """What writes it into the tables, in this order."""
        return [(statement, columns, chunk) for statement, columns, rows in self._writes() for chunk in chunks(rows)]

    def _writes(self) -> Iterator[tuple[str, int, Sequence[Row]]]:
        yield INSERT, 18, list(self._tasks.values())
        yield UPDATE, 8, list(self._changes.values())
        yield EVENTS, 4, self._events


class Applying(NamedTuple):
    """What is on its way from the log, up to the row `upto`, into the tables: in `pieces`, of which so many are `done`."""

    pending: Pending
    upto: int
    pieces: list[Piece]
    done: int

    def after_one(self) -> "Applying | None":
        """What is left once one more piece is done."""
        return self._replace(done=self.done + 1) if self.done + 1 < len(self.pieces) else None


def chunks(rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    """The rows, at most `MOST` at a time."""
    if len(rows) <= MOST:
        return (rows,) if rows else ()
    return (rows[start : start + MOST] for start in range(0, len(rows), MOST))


def as_text(tasks: Sequence[Row], changes: Sequence[Row], events: Sequence[Row]) -> str:
    """A transaction as it stands in the log."""
    return ujson.dumps((tasks, changes, events), ensure_ascii=False)


def without(orders: frozenset[int], *lists: Sequence[Row]) -> Sequence[Sequence[Row]]:
    """The same rows, but for those of these tasks."""
    return [[row for row in rows if row[0] not in orders] for rows in lists] if orders else lists
