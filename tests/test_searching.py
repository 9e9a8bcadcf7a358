"""How the journal's file is searched: what is found, and how much is looked at for it."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import app.searching
from app.journal import LOOKED_AT, Wanted
from app.messages import FINAL_STATES, State
from app.searching import search
from app.store import Store
from app.tables import Row

STEPS = 100
"""Instructions of SQLite's machine between two that are counted."""

A_TASK = 25
"""Instructions that looking at one task may take."""


def a_task(n: int, task_id: str, state: State = State.SUCCEEDED, owner: str = "", function: str = "echo") -> Row:
    finished = 5.0 if state in FINAL_STATES else None
    key = f"{task_id} {owner}" if owner else task_id
    return (n, key, owner, state.value, finished, 1, 3, "", 1, 0.0, 4.0, 0, 0, 0, 1, 0.0, function, "{}")


@contextmanager
def journal_of(path: Path, tasks: list[Row]) -> Iterator[sqlite3.Connection]:
    """A connection to a journal's file that has these tasks."""
    store = Store(path / "journal.db", "normal", 1e9)
    for start in range(0, len(tasks), 5000):
        store.write(tasks[start : start + 5000], [], [])
    store.close()
    with closing(sqlite3.connect(path / "journal.db")) as db:
        yield db


def all_found(db: sqlite3.Connection, owner: str, limit: int, wanted: Wanted) -> list[str]:
    """The ids, by as many searches as it takes."""
    found: list[str] = []
    while True:
        entries, before = search(db, owner, limit, wanted, 0.0)
        found += [entry["id"] for entry in entries]
        if before is None:
            return found
        assert before < wanted.before
        wanted = wanted._replace(before=before)


@pytest.mark.parametrize("looked_at", [1, 5, 40, 1000])
def test_all_that_is_asked_for_is_found_once_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: int) -> None:
    monkeypatch.setattr(app.searching, "LOOKED_AT", looked_at)
    chance = random.Random(looked_at)
    states = list(State)
    tasks = {
        n: (f"{chance.choice('abA_')}{chance.choice('01')}{n}", chance.choice(states), chance.choice(["", "me"]), chance.choice("fg"))
        for n in range(1, 200)
    }
    with journal_of(tmp_path, [a_task(n, *said) for n, said in tasks.items()]) as db:
        for _ in range(60):
            owner, prefix, function = (
                chance.choice(["", "me", "else"]),
                chance.choice(["", "a", "b1", "A0", "a019"]),
                chance.choice(["", "g"]),
            )
            asked = frozenset(chance.sample(states, chance.choice([0, 0, 1, 2])))
            expected = [
                task_id
                for n, (task_id, state, of, called) in reversed(tasks.items())
                if of == owner
                and task_id.startswith(prefix)
                and function in ("", called)
                # in which of the others one stands is known in memory
                and (not asked or state in asked or (asked - FINAL_STATES and state not in FINAL_STATES))
            ]
            assert all_found(db, owner, chance.randint(1, 30), Wanted(states=asked, function=function, id=prefix)) == expected


@pytest.mark.parametrize(
    ("wanted", "found", "looked_at"),
    [
        pytest.param(Wanted(), 100, 100, id="the newest"),
        pytest.param(Wanted(id="0"), 100, 2 * LOOKED_AT, id="an id of which one character is said"),
        pytest.param(Wanted(id="00077"), 1, 100, id="an id of which much is said"),
        pytest.param(Wanted(states=frozenset({State.RUNNING})), 1, 100, id="what runs, however long"),
        pytest.param(Wanted(function="none"), 0, 2 * LOOKED_AT, id="what is nowhere"),
        pytest.param(Wanted(id="0", states=frozenset({State.FAILED})), 0, 3 * LOOKED_AT, id="two filters that nothing passes"),
    ],
)
def test_a_search_looks_at_so_many_tasks_however_many_there_are(tmp_path: Path, wanted: Wanted, found: int, looked_at: int) -> None:
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += STEPS
        return 0

    tasks = [a_task(n, f"{n:05}", State.RUNNING if n == 1 else State.SUCCEEDED) for n in range(1, 6 * LOOKED_AT)]
    with journal_of(tmp_path, tasks) as db:
        db.set_progress_handler(step, STEPS)
        assert len(search(db, "", 100, wanted, 0.0).entries) == found
    assert steps < A_TASK * looked_at


def test_long_arguments_are_read_only_where_they_are_asked_for(tmp_path: Path) -> None:
    tasks = [(*a_task(1, "long")[:-1], '{"text": "' + "x" * 100_000 + '"}')]
    with journal_of(tmp_path, tasks) as db:
        (told,) = search(db, "", 10, Wanted(args=True), 0.0).entries
        assert len(told["args"]["text"]) == 100_000
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)  # a longer value is an error, where one is read
        (entry,) = search(db, "", 10, Wanted(), 0.0).entries
        assert entry["id"] == "long"
        assert "args" not in entry
        with pytest.raises(sqlite3.DataError):
            search(db, "", 10, Wanted(args=True), 0.0)
