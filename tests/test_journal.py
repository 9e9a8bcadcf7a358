"""What every journal promises, whatever it keeps things in; and how much the one in memory keeps."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import journal as journal_module
from app.journal import Journal, Kind, MemoryJournal, Record, Refused
from app.messages import Event, accepted_line
from app.task import Key, Task, key_of
from tests.harness import wait_until
from tests.journals import ENGINES, accept, accepted, commit, ended, make_task, said


@pytest.fixture(params=ENGINES)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    with ENGINES[request.param](tmp_path) as one:
        yield one


def story(task: Task, events: int) -> list[Record]:
    """Accepted, then so many events, the last of them final."""
    return [accept(task), accepted(task), *(said(task, seq) for seq in range(2, events)), ended(task, events)]


def numbers(journal: Journal, key: Key, after: int = 0, most: int = 1000) -> list[int]:
    """The numbers of the events that it gives."""
    stored = journal.read(key, after, most)
    assert stored is not None
    return [seq for seq, _, _ in stored.events]


# Commits.


def test_what_was_committed_can_be_read(journal: Journal) -> None:
    task = make_task("a", args=b'{"n":1}', function="echo")
    assert commit(journal, *story(task, 3)) == frozenset()
    stored = journal.read(task.key)
    assert stored is not None
    assert (stored.function, stored.args, stored.final) == ("echo", b'{"n":1}', True)
    assert stored.events == [(seq, line, final) for _, _, seq, line, final, _ in story(task, 3)[1:]]


def test_done_is_called_once_for_each_commit_and_in_their_order(journal: Journal) -> None:
    done: list[int] = []
    for number in range(50):
        task = make_task(f"t{number}")
        journal.commit([accept(task), accepted(task)], lambda known, number=number: done.append(number))  # type: ignore[misc]
        if number % 7 == 0:
            gevent.sleep(0.001)
    wait_until(lambda: gevent.sleep(0.002) or len(done) >= 50)
    gevent.sleep(0.01)
    assert done == list(range(50))


def test_nothing_of_a_batch_can_be_read_before_it_is_complete_and_all_of_it_then(journal: Journal) -> None:
    task, complete = make_task("a"), list[bool]()
    journal.commit(story(task, 3), lambda known: complete.append(True))
    while not complete:
        assert journal.read(task.key) is None or complete
        gevent.sleep(0)
    assert numbers(journal, task.key) == [1, 2, 3]


def test_a_commit_may_follow_from_a_commit(journal: Journal) -> None:
    task, finished = make_task("a"), list[Refused]()
    journal.commit([accept(task), accepted(task)], lambda _: journal.commit([ended(task, 2)], finished.append))
    wait_until(lambda: gevent.sleep(0.002) or finished)
    assert numbers(journal, task.key) == [1, 2]


def test_a_commit_of_nothing_and_of_notes_completes(journal: Journal) -> None:
    assert commit(journal) == frozenset()
    assert commit(journal, (Kind.NOTE, None, 0, b"", False, None)) == frozenset()


def test_sending_it_to_a_worker_says_nothing_to_a_client(journal: Journal) -> None:
    task = make_task("a")
    commit(journal, accept(task), accepted(task), (Kind.DISPATCH, task, 0, b"", False, None))
    assert numbers(journal, task.key) == [1]


# Duplicates.


def test_a_key_that_is_known_is_refused_and_the_old_task_stays_as_it_was(journal: Journal) -> None:
    old, new, other = make_task("a", function="old"), make_task("a", function="new"), make_task("b")
    commit(journal, *story(old, 3))
    assert commit(journal, *story(new, 4), *story(other, 2)) == {old.key}
    stored = journal.read(old.key)
    assert stored is not None
    assert stored.function == "old"
    assert len(stored.events) == 3
    assert numbers(journal, other.key) == [1, 2]


def test_a_task_that_was_refused_leaves_nothing_behind_later_either(journal: Journal) -> None:
    """Somebody may cancel it before the commit that refuses it is complete."""
    old, new = make_task("a"), make_task("a")
    commit(journal, *story(old, 3))
    refused: list[Refused] = []
    journal.commit([accept(new)], refused.append)
    commit(journal, ended(new, 4, Event.CANCELLED))
    assert refused == [{old.key: None}]
    assert numbers(journal, old.key) == [1, 2, 3]


def test_the_same_key_twice_in_a_batch_is_accepted_once(journal: Journal) -> None:
    first, second = make_task("a", function="first"), make_task("a", function="second")
    assert commit(journal, accept(first), accepted(first), accept(second), accepted(second)) == {first.key}
    stored = journal.read(first.key)
    assert stored is not None
    assert (stored.function, len(stored.events)) == ("first", 1)


def test_owners_may_use_the_same_id(journal: Journal) -> None:
    mine, theirs, nobodys = make_task("a", "me"), make_task("a", "they"), make_task("a")
    assert commit(journal, *story(mine, 2), *story(theirs, 3), *story(nobodys, 4)) == frozenset()
    assert [numbers(journal, key_of(owner, "a")) for owner in ("me", "they", "")] == [[1, 2], [1, 2, 3], [1, 2, 3, 4]]


# Reading.


def test_a_task_that_nobody_submitted_is_not_known(journal: Journal) -> None:
    assert journal.read(key_of("", "nobody")) is None
    assert journal.recent("", 10).entries == []


@pytest.mark.parametrize(("after", "most"), [(0, 1000), (0, 3), (4, 1000), (4, 2), (9, 5), (10, 5), (99, 5), (0, 1)])
def test_reading_gives_what_came_after_a_number_and_no_more_than_was_asked_for(journal: Journal, after: int, most: int) -> None:
    task = make_task("a")
    commit(journal, *story(task, 10))
    assert numbers(journal, task.key, after, most) == list(range(1, 11))[after : after + most]


def test_a_task_of_which_only_the_end_is_told_was_accepted_all_the_same(journal: Journal) -> None:
    task = make_task("a", final_only=True)
    commit(journal, accept(task))
    assert journal.read(task.key) == ("echo", b"{}", False, [(1, accepted_line("a", 0), False)])
    commit(journal, ended(task, 2))
    assert numbers(journal, task.key) == [1, 2]
    assert numbers(journal, task.key, 0, 1) == [1]
    assert numbers(journal, task.key, 1) == [2]


def test_numbers_may_have_gaps(journal: Journal) -> None:
    task = make_task("a")
    commit(journal, accept(task), accepted(task), said(task, 4), said(task, 8), ended(task, 9))
    assert [numbers(journal, task.key, after) for after in (1, 3, 4, 7, 8)] == [[4, 8, 9], [4, 8, 9], [8, 9], [8, 9], [9]]


def test_ones_own_tasks_newest_first(journal: Journal) -> None:
    for number in range(6):
        commit(journal, accept(make_task(f"t{number}", "me" if number % 2 else "they")))
    assert [entry["id"] for entry in journal.recent("me", 10).entries] == ["t5", "t3", "t1"]
    assert [entry["id"] for entry in journal.recent("me", 2).entries] == ["t5", "t3"]
    assert [entry["id"] for entry in journal.recent("they", 10).entries] == ["t4", "t2", "t0"]
    assert journal.recent("nobody", 10).entries == []
    (entry, *_) = journal.recent("me", 1).entries
    assert (entry["function"], entry["state"], entry["attempt"]) == ("echo", "queued", 0)
    assert abs(entry["accepted_at"] - time.time()) < 60


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(2, 5)), max_size=20), st.integers(0, 1 << 30))
@settings(max_examples=30, deadline=None)
def test_however_records_are_cut_into_batches_each_task_has_its_own_story(submits: list[tuple[int, int]], seed: int) -> None:
    """Against plain dictionaries, for every engine."""
    cut = random.Random(seed)
    for engine in ENGINES.values():
        with engine(Path("/nonexistent")) as journal:
            expected: dict[Key, int] = {}
            batch: list[Record] = []
            for number, events in submits:
                task = make_task(f"t{number}")
                expected.setdefault(task.key, events)
                batch += story(task, events)
                if cut.random() < 0.5:
                    commit(journal, *batch)
                    batch = []
            commit(journal, *batch)
            assert {key: numbers(journal, key)[-1] for key in expected} == expected


# How much is kept.


def test_finished_tasks_are_forgotten_oldest_first_past_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "KEPT_TASKS", 10)
    journal = MemoryJournal("journal")
    live = make_task("live")
    commit(journal, accept(live))
    for number in range(25):
        commit(journal, *story(make_task(f"t{number}"), 2))
    assert [entry["id"] for entry in journal.recent("", 100).entries] == [*(f"t{number}" for number in range(24, 14, -1)), "live"]
    assert journal.read(key_of("", "t14")) is None
    assert commit(journal, *story(make_task("t14"), 2)) == frozenset()
    commit(journal, ended(live, 2))
    assert numbers(journal, live.key) == [1, 2]


def test_finished_tasks_are_forgotten_oldest_first_past_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "KEPT_BYTES", 10_000)
    journal = MemoryJournal("journal")
    for number in range(30):
        task = make_task(f"t{number}", args=b'["%b"]' % (b"x" * 500))
        commit(journal, accept(task), said(task, 2, note="x" * 300), ended(task, 3, result="x" * 100))
    assert [entry["id"] for entry in journal.recent("", 100).entries] == [
        f"t{number}" for number in range(29, 29 - len(journal.recent("", 100).entries), -1)
    ]
    assert 7 <= len(journal.recent("", 100).entries) <= 10
    commit(journal, *story(make_task("large", args=b'["%b"]' % (b"x" * 20_000)), 2))
    assert journal.recent("", 100).entries == []
    commit(journal, *story(make_task("small"), 2))
    assert [entry["id"] for entry in journal.recent("", 100).entries] == ["small"]


def test_finished_tasks_are_forgotten_after_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "KEPT_FOR", 0.02)
    journal = MemoryJournal("journal")
    commit(journal, *story(make_task("old"), 2), accept(make_task("live")))
    time.sleep(0.03)
    commit(journal, *story(make_task("new"), 2))
    assert [entry["id"] for entry in journal.recent("", 100).entries] == ["new", "live"]


def test_whoever_asks_while_a_finished_task_is_forgotten_in_the_same_commit_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """`done` shows the end to those who watch; one of them may read the task again there."""
    monkeypatch.setattr(journal_module, "KEPT_TASKS", 0)
    journal, task = MemoryJournal("journal"), make_task("a")
    seen: list[list[int]] = []
    journal.commit(story(task, 2), lambda known: seen.append(numbers(journal, task.key)))
    assert seen == [[1, 2]]
    assert journal.read(task.key) is None
