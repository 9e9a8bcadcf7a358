"""The journal on the disk: what is there after its process has gone, who may open it, and how long it keeps what it keeps."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from app.durable import DurableJournal
from app.errors import SettingsError
from app.journal import ANY, Kind, Record
from app.messages import Event, State, Submit
from app.store import APPLY_AT, Store
from app.tables import Row
from app.task import Task, key_of
from tests.harness import ROOT, wait_until
from tests.journals import accept, accepted, commit, ended, make_task, said

Open = Callable[..., DurableJournal]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the journal in the test's directory; whichever was open before is closed."""
    journals: list[DurableJournal] = []

    def open_it(durability: str = "full", retention: float = 3600.0) -> DurableJournal:
        close()
        journals.append(DurableJournal(tmp_path, durability, retention, 0.0))
        return journals[-1]

    def close() -> None:
        while journals:
            journals.pop().close()

    yield open_it
    close()


class At:
    """A worker, as far as the journal is concerned."""

    def __init__(self, label: str) -> None:
        self.label = label


def dispatch(task: Task, instance: str, number: int) -> Record:
    """It is sent to that worker."""
    task.state, task.link, task.dispatch = State.DISPATCHED, At(instance), number
    task.attempt += 1
    return (Kind.DISPATCH, task, 0, b"", False, task.link)


def finished(task: Task, seq: int = 2) -> Record:
    """It succeeds."""
    task.state, task.link, task.seq = State.SUCCEEDED, None, seq
    return ended(task, seq)


# What is there afterwards.


def test_a_journal_has_its_name_and_its_orders_go_on(opened: Open) -> None:
    first = opened()
    task = make_task("a")
    commit(first, accept(task))
    name = first.id
    again = opened()
    assert (again.id, again.first_order) == (name, task.order + 1)


def test_what_was_said_is_there_to_the_letter(opened: Open) -> None:
    task = make_task("a", args='{"text":"ملاحظة\\u0000 🌍","n":1.50}'.encode())
    record = said(task, 2, Event.OUTPUT, value={"text": "ملاحظة 🌍 </script>", "n": [1e300, -0.0, 10**30]})
    commit(opened(), accept(task), accepted(task), record, finished(task, 3))
    stored = opened().read(task.key)
    assert stored is not None
    assert (stored.args, stored.final, [seq for seq, _, _ in stored.events]) == (task.args, True, [1, 2, 3])
    assert stored.events[1][1] == record[3]


def test_what_was_left_is_found_as_it_stood(opened: Open) -> None:
    journal = opened()
    waits = Task("", "", Submit("waits", "echo", None, priority=7), b"[1]", 10)
    mine = Task("me", "me", Submit("waits", "other", None, True, cancel_on_disconnect=True), b"{}", 11)
    mine.attempts, mine.backoff = 3, 0.5
    runs, sent, over = (
        Task("", "", Submit(name, "echo", None), b"{}", 12 + number) for number, name in enumerate(("runs", "sent", "over"))
    )
    commit(journal, *(accept(task) for task in (waits, mine, runs, sent, over)))
    commit(journal, dispatch(runs, "one", 1000), dispatch(sent, "two", 1001), dispatch(over, "one", 1002))
    commit(journal, said(runs, 2, Event.STARTED), said(runs, 3), finished(over))
    found = opened().unfinished()
    assert [(task.key, instance) for task, instance in found] == [("waits", ""), ("waits me", ""), ("runs", "one"), ("sent", "two")]
    first, second, third, fourth = (task for task, _ in found)
    assert (first.order, first.priority, first.args, first.state, first.seq, first.attempt) == (10, 7, b"[1]", State.QUEUED, 1, 0)
    assert (second.owner, second.lane, second.function, second.final_only, second.ends_with_client) == ("me", "me", "other", True, True)
    assert (second.attempts, second.backoff) == (3, 0.5)
    assert (third.state, third.seq, third.kept, third.attempt, third.dispatch) == (State.RUNNING, 3, 3, 1, 1000)
    assert (fourth.state, fourth.seq) == (State.DISPATCHED, 1)
    assert abs(first.accepted_at - time.time()) < 60


def test_what_went_back_to_the_queue_or_waits_for_its_time_is_found_so(opened: Open) -> None:
    journal = opened()
    back, retries = (Task("", "", Submit(name, "echo", None), b"{}", number) for number, name in enumerate(("back", "retries"), 1))
    commit(journal, accept(back), accept(retries), dispatch(back, "one", 5), dispatch(retries, "one", 6))
    back.state, back.link, back.attempt = State.QUEUED, None, 0
    retries.state, retries.link, retries.seq, retries.due = State.RETRYING, None, 2, journal.now() + 50
    commit(journal, (Kind.MOVE, back, 0, b"", False, None), said(retries, 2, Event.RETRYING), (Kind.MOVE, retries, 0, b"", False, None))
    (first, nobody), (second, nobody_either) = opened().unfinished()
    assert (nobody, nobody_either) == ("", "")
    assert (first.state, first.attempt) == (State.QUEUED, 0)
    assert (second.state, second.attempt, second.seq) == (State.RETRYING, 1, 2)
    assert second.due == retries.due


def test_a_process_that_is_killed_loses_nothing_that_was_complete(tmp_path: Path, opened: Open) -> None:
    """Some of it is in the log alone, some of it in the tables: the kill comes wherever it happens to be."""
    program = (
        "import sys, itertools; from pathlib import Path; from app.durable import DurableJournal; from tests.journals import *\n"
        "journal = DurableJournal(Path(sys.argv[1]), 'normal', 3600.0, 0.0)\n"
        "for n in itertools.count():\n"
        "    task = make_task(f't{n}', args=b'[\"%b\"]' % (b'x' * 500)); commit(journal, accept(task), accepted(task))\n"
        "    commit(journal, ended(task, 2)); print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for _ in range(2500):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        last = max([last, *[int(number) for number in process.stdout.read().split()]])
    journal = opened()
    for number in range(0, last + 1, 50):
        stored = journal.read(f"t{number}")
        assert stored is not None
        assert stored.final
    assert len(journal.unfinished()) <= 1


def test_what_is_not_durable_is_told_in_its_turn_and_gone_with_its_process(opened: Open) -> None:
    journal, told = opened(), list[str]()
    kept, passing = make_task("kept"), make_task("passing")
    passing.durable = False
    journal.commit([accept(kept), accepted(kept)], lambda _: told.append("kept"))
    journal.commit([accept(passing), accepted(passing)], lambda _: told.append("passing"))
    assert told == []
    wait_until(lambda: gevent.sleep(0.002) or len(told) == 2)
    assert told == ["kept", "passing"]
    assert {entry["id"] for entry in journal.recent("", 10).entries} == {"kept", "passing"}
    again = opened()
    assert [entry["id"] for entry in again.recent("", 10).entries] == ["kept"]
    assert again.read("passing") is None


def test_what_is_not_durable_waits_for_no_disk(opened: Open) -> None:
    journal, passing, told = opened(), make_task("a"), list[str]()
    passing.durable = False
    journal.commit([accept(passing), accepted(passing)], lambda _: told.append("passing"))
    assert told == ["passing"]


# How it is written.


def test_many_commits_share_a_transaction(opened: Open) -> None:
    journal, told = opened(), list[int]()
    for number in range(200):
        task = make_task(f"t{number}")
        journal.commit([accept(task), accepted(task)], lambda _, number=number: told.append(number))  # type: ignore[misc]
    wait_until(lambda: gevent.sleep(0.002) or len(told) == 200)
    assert told == list(range(200))
    assert (journal.commits, journal.transactions) == (200, 2)


def new_row(order: int, key: str, finished: float | None = None) -> Row:
    """A task that waits, or has ended."""
    return (order, key, "", "queued" if finished is None else "succeeded", finished, 0, 1, "", 0, 0.0, 1.0, 0, 0, 0, 1, 0.0, "echo", "{}")


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_a_transaction_is_one_statement_whatever_its_size(tmp_path: Path, count: int) -> None:
    store, statements = Store(tmp_path / "journal.db", "full", 3600.0), list[str]()
    store._db.set_trace_callback(statements.append)
    tasks = [new_row(n, f"t{n}") for n in range(1, count + 1)]
    assert store.write(tasks, [], [(n, 2, False, "{}") for n in range(1, count + 1)]) == frozenset()
    assert len(statements) == 1
    statements.clear()
    store.apply()
    assert len(statements) <= 10
    store.close()


def test_durability_is_what_sqlite_is_told(opened: Open, tmp_path: Path) -> None:
    for durability, confirm in (("full", 2), ("normal", 1)):
        store = opened(durability)._store
        commit(opened(durability), accept(make_task(durability)))
        assert opened(durability)._scribe.ask(lambda: opened) is opened
        journal = opened(durability)
        assert journal._scribe.ask(lambda journal=journal: journal._store._db.execute("PRAGMA synchronous").fetchone()) == (confirm,)
        assert store is not journal._store


def test_files_are_for_their_owner_alone(opened: Open, tmp_path: Path) -> None:
    commit(opened(), accept(make_task("a")))
    names = ("journal.db", "journal.db-wal", "journal.lock", "journal.reserve")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(names, 0o600)


# Who may open it.


def test_a_journal_has_one_owner(tmp_path: Path, opened: Open) -> None:
    journal = opened()
    commit(journal, accept(make_task("a")))
    program = (
        "import sys; from pathlib import Path; from app.durable import DurableJournal; DurableJournal(Path(sys.argv[1]), 'full', 1.0, 0.1)"
    )
    asked = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert "another gateway has its journal" in asked.stderr
    assert journal.read("a") is not None


@pytest.mark.parametrize(
    "content", [b"this is no database, and it is longer than a header of one " * 20, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_what_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path, opened: Open, content: bytes) -> None:
    (tmp_path / "journal.db").write_bytes(content)
    with pytest.raises(SettingsError, match=r"journal\.db cannot be used as a journal|the journal cannot be opened"):
        opened()
    assert (tmp_path / "journal.db").read_bytes() == content


def test_a_journal_of_a_later_version_is_refused(tmp_path: Path, opened: Open) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(SettingsError, match="made by a later version"):
        opened()


# Its clock.


def test_the_clock_goes_on_while_nobody_runs_and_is_not_set_with_the_machines(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened().now()
    monkeypatch.setattr(time, "time", lambda: before + 1e6)
    assert before < opened().now() < before + 60


def test_after_a_reboot_it_begins_with_the_time_of_day(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened().now()
    opened().close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("UPDATE meta SET value='another boot' WHERE name='boot'")
    db.close()
    monkeypatch.setattr(time, "time", lambda: before + 1e6)
    assert before + 1e6 <= Store(tmp_path / "journal.db", "full", 1.0).now() < before + 1e6 + 60


# How long things are kept.


def test_finished_tasks_are_forgotten_after_their_time_and_others_are_not(opened: Open) -> None:
    journal = opened("normal", retention=0.3)
    live, late, old = make_task("live"), make_task("late"), make_task("old")
    commit(journal, accept(live), accept(late), accept(old), said(live, 2), finished(old))
    time.sleep(0.4)
    commit(journal, finished(late))
    wait_until(lambda: gevent.sleep(0.05) or journal.read("old") is None)
    assert journal.read("late") is not None
    assert [seq for seq, _, _ in journal.read("live").events] == [1, 2]  # type: ignore[union-attr]
    assert commit(journal, accept(make_task("old"))) == frozenset(), "its id is free again"
    assert commit(journal, accept(make_task("live"))) == {"live"}
    wait_until(lambda: gevent.sleep(0.05) or journal.read("late") is None)
    assert journal.read("live") is not None


def files_of(path: Path) -> int:
    """Bytes of the journal and of SQLite's own log."""
    return sum(file.stat().st_size for file in path.glob("journal.db*"))


def test_its_file_does_not_grow_for_ever(opened: Open, tmp_path: Path) -> None:
    journal, sizes = opened("normal", retention=0.2), list[int]()
    for _ in range(8):
        for _ in range(60):
            tasks = [make_task(f"{os.urandom(8).hex()}", args=b'["%b"]' % (b"x" * 300)) for _ in range(100)]
            commit(journal, *(record for task in tasks for record in (accept(task), finished(task))))
        wait_until(lambda: not journal.recent("", 1).entries, 10)
        sizes.append(files_of(tmp_path))
    assert max(sizes[4:]) <= 1.25 * max(sizes[:4]), sizes


def test_what_forgets_while_nothing_else_happens_does_not_grow(tmp_path: Path) -> None:
    store = Store(tmp_path / "journal.db", "normal", 1e9)
    for start in range(1, 20_001, 500):
        store.write([new_row(n, os.urandom(8).hex(), 1.0) for n in range(start, start + 500)], [], [])
    store.apply()
    store.fold()
    store._retention = -1e9
    for _ in range(40):
        store._sweep_at = 0.0
        store.rest()
    assert store.recent("", 1, ANY, 0.0).entries == []
    assert (tmp_path / "journal.db-wal").stat().st_size < 2 << 20
    store.close()


def test_more_rows_a_transaction_than_are_brought_into_the_tables_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "journal.db", "normal", 3600.0)
    for turn in range(12):
        numbers = range(turn * 2000 + 1, turn * 2000 + 2001)
        store.write([new_row(n, f"t{n}") for n in numbers], [], [(n, 2, True, "{}") for n in numbers])
        store.settle()
        assert store._pending.size <= APPLY_AT + 4000
    store.close()


def test_known_tasks_alone_leave_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "journal.db", "normal", 3600.0)
    assert store.write([new_row(1, "t1")], [], []) == frozenset()
    for order in range(2, 20):
        assert store.write([new_row(order, "t1")], [], [(order, 2, False, "{}")]) == {order}
    store.apply()
    assert store.read(key_of("", "t1"), 0, 10) is not None
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        assert db.execute("SELECT count(*) FROM log").fetchone() == (0,)


def test_owners_are_listed_by_themselves_after_a_restart(opened: Open) -> None:
    journal = opened()
    for number in range(6):
        commit(journal, accept(make_task(f"t{number}", "me" if number % 2 else "they")))
    assert [entry["id"] for entry in opened().recent("me", 10).entries] == ["t5", "t3", "t1"]
    assert opened().read(key_of("me", "t1")) is not None
    assert opened().read(key_of("they", "t1")) is None
