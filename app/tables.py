"""The journal's tables: their columns, the statements on them, and what stands in a row of a task. Nothing here reads or writes.

Each statement is for many rows, given as `VALUES`; a row of nothing but NULLs says nothing.
"""

from functools import cache
from typing import Any

from app.journal import Unfinished
from app.messages import State, Submit
from app.task import Task

VERSION = 1
SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE log(number INTEGER PRIMARY KEY, rows TEXT NOT NULL);
CREATE TABLE tasks(
    n INTEGER PRIMARY KEY, key TEXT NOT NULL, owner TEXT NOT NULL, state TEXT NOT NULL, finished REAL, attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL, worker TEXT NOT NULL, dispatch INTEGER NOT NULL, due REAL NOT NULL, accepted REAL NOT NULL,
    flags INTEGER NOT NULL, priority INTEGER NOT NULL, position INTEGER NOT NULL, attempts INTEGER NOT NULL, backoff REAL NOT NULL,
    function TEXT NOT NULL, args TEXT NOT NULL);
CREATE UNIQUE INDEX by_key ON tasks(key);
CREATE INDEX by_owner ON tasks(owner, n) WHERE owner <> '';
CREATE INDEX unfinished ON tasks(n) WHERE finished IS NULL;
CREATE TABLE events(n INTEGER, seq INTEGER, final INTEGER NOT NULL, line TEXT NOT NULL, PRIMARY KEY(n, seq)) WITHOUT ROWID;
"""
INSERT = "INSERT OR REPLACE INTO tasks SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL"
UPDATE = (
    "UPDATE tasks SET state=column2, finished=column3, attempt=column4, seq=column5, worker=column6, dispatch=column7, due=column8 "
    "FROM (VALUES {}) WHERE n=column1"
)
EVENTS = "INSERT OR REPLACE INTO events SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL"
LOG_IF_NEW = "INSERT INTO log(rows) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE key IN (VALUES {}))"
KNOWN = "SELECT key FROM tasks WHERE key IN (VALUES {})"
UNFINISHED = (
    "SELECT n, key, owner, state, attempt, max(seq, coalesce((SELECT max(seq) FROM events WHERE events.n = tasks.n), 0)), worker, "
    "dispatch, due, accepted, flags, priority, position, attempts, backoff, function, args, seq "
    "FROM tasks WHERE finished IS NULL ORDER BY n"
)
_FINAL_ONLY, _ENDS_WITH_CLIENT = 1, 2

Row = tuple[Any, ...]


def task_row(task: Task, ahead: float, finished: float | None) -> Row:
    """A new task as it stands. `ahead`: how far the machine's clock is ahead of the journal's, in seconds."""
    n, *changes = change_row(task, finished)
    flags = _FINAL_ONLY * task.final_only + _ENDS_WITH_CLIENT * task.ends_with_client
    place = (task.accepted_at - ahead, flags, task.priority, task.position, task.attempts, task.backoff)
    return (n, task.key, task.owner, *changes, *place, task.function, task.args.decode())


def change_row(task: Task, finished: float | None) -> Row:
    """What of a task changes, as it stands."""
    worker = "" if task.link is None else task.link.label
    return (task.order, task.state.value, finished, task.attempt, task.seq, worker, task.dispatch, task.due)


def task_of(row: Row, ahead: float) -> Unfinished:
    """A task from its row, as UNFINISHED selects it."""
    n, key, owner, state, attempt, seq, worker, dispatch, due, accepted, flags, priority, position, attempts, backoff = row[:15]
    function, args, moved_at = row[15:]
    task_id = key.partition(" ")[0]
    ends_with_client = bool(flags & _ENDS_WITH_CLIENT)
    submit = Submit(task_id, function, None, bool(flags & _FINAL_ONLY), priority, cancel_on_disconnect=ends_with_client)
    task = Task(owner, owner, submit, args.encode(), n)
    task.state = State.RUNNING if worker and seq > moved_at else State(state)
    task.seq = task.kept = seq
    task.attempt, task.attempts, task.backoff, task.position = attempt, attempts, backoff, position
    task.dispatch, task.due, task.accepted_at = dispatch, due, accepted + ahead
    return task, worker


@cache
def with_rows(statement: str, columns: int, count: int) -> str:
    """The statement for so many rows of so many columns."""
    row = f"({','.join('?' * columns)})"
    return statement.format(",".join([row] * count))


def power_of_two(count: int) -> int:
    """The number of rows that a statement is made for, so that there are few of them to prepare."""
    return 1 << (count - 1).bit_length() if count else 1
