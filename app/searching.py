"""How the tasks in the journal's file are searched: which index is walked, and where a search ends. It is made in the thread that writes,
so that whoever wants to know delays whoever wants something done: one search looks at `LOOKED_AT` tasks, and reads the arguments of those
alone that it tells. What is asked for is `Wanted`'s.
"""

import sqlite3
from typing import Any, NamedTuple

import ujson

from app.journal import LOOKED_AT, Listed, Wanted
from app.tables import Row
from app.task import describe

_LISTED = (
    "SELECT key, function, state, seq, attempt, accepted, n, finished, {} FROM tasks {} "
    "WHERE {} AND n<? AND n>=? AND {} ORDER BY n DESC LIMIT ?"
)
_LOOKED_TO = "SELECT n FROM tasks {} WHERE {} AND n<? ORDER BY n DESC LIMIT 1 OFFSET ?"
_NAMED_SO = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE key>=? AND key<? LIMIT ?)"


class _Condition(NamedTuple):
    """Of a task's row, with its values."""

    text: str
    values: list[Any]

    def __and__(self, other: "_Condition") -> "_Condition":
        return _Condition(f"{self.text} AND {other.text}", [*self.values, *other.values])


_ANY = _Condition("1", [])


def search(db: sqlite3.Connection, owner: str, limit: int, wanted: Wanted, ahead: float) -> Listed:
    """As `Journal.recent`. `ahead`: how far the machine's clock is ahead of the journal's, in seconds."""
    index, whose, asked_for = _plan(db, owner, wanted)
    floor = 0
    if asked_for is not _ANY:
        last = db.execute(_LOOKED_TO.format(index, whose.text), (*whose.values, wanted.before, LOOKED_AT - 1)).fetchone()
        floor = last[0] if last else 0
    statement = _LISTED.format("args" if wanted.args else "''", index, whose.text, asked_for.text)
    rows = db.execute(statement, (*whose.values, wanted.before, floor, *asked_for.values, limit)).fetchall()
    entries = [_entry_of(row, ahead, wanted) for row in rows]
    return Listed(entries, rows[-1][6] if len(rows) == limit else floor or None)


def _plan(db: sqlite3.Connection, owner: str, wanted: Wanted) -> tuple[str, _Condition, _Condition]:
    """The index, which tasks are looked at in its order, and which of them are asked for. An id of which only a little is said is no
    help: so many are named so that they would have to be sorted, and among the newest are some."""
    whose = _Condition("owner=? AND owner<>''", [owner]) if owner else _Condition("owner=''", [])
    asked_for = _asked_for(wanted)
    if wanted.id:
        named_so = _Condition("key>=? AND key<?", [wanted.id, wanted.id + "\x7f"])
        (count,) = db.execute(_NAMED_SO, (*named_so.values, LOOKED_AT + 1)).fetchone()
        if count <= LOOKED_AT:
            return "INDEXED BY by_key", whose & named_so, asked_for
        asked_for = named_so & asked_for
    if wanted.states and not wanted.final_states:
        return "INDEXED BY unfinished", whose & _Condition("finished IS NULL", []), asked_for
    return "", whose, asked_for


def _asked_for(wanted: Wanted) -> _Condition:
    condition = _ANY
    if wanted.states:
        names = wanted.final_states
        unfinished = " OR finished IS NULL" if wanted.unfinished else ""
        condition &= _Condition(f"(finished IS NOT NULL AND state IN ({','.join('?' * len(names))}){unfinished})", list(names))
    if wanted.function:
        condition &= _Condition("function=?", [wanted.function])
    return condition


def _entry_of(row: Row, ahead: float, wanted: Wanted) -> dict[str, Any]:
    """A task as it is listed, from its row as `_LISTED` selects it."""
    key, function, state, seq, attempt, accepted, n, finished, args = row
    entry = describe(key.partition(" ")[0], function, state, seq, attempt, accepted + ahead, n, finished + ahead if finished else 0.0)
    return {**entry, "args": ujson.loads(args)} if wanted.args else entry
