"""Dispatches that are committed ahead of a free slot: how many, who leaves with the next slot, and who goes back to the queue."""

from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import sending
from app.errors import Unavailable
from app.link import Link
from app.messages import Submit
from app.places import Places
from app.sending import Sending
from app.task import Task
from tests.counters import check_counters

PLAIN = {"name": "plain", "options": {}}
CAPPED = {"name": "capped", "options": {"max_running": 2}}


class Worker(Link):
    """A link that notes what is sent, instead of sending it."""

    def __init__(self, name: str, slots: int) -> None:
        super().__init__(f"{name} {name} 1", local=True)
        self.describe({"slots": slots, "process_slots": 1, "siblings": 1, "functions": [PLAIN, CAPPED]})
        self.got: list[str] = []
        self.connection: Any = self  # nothing is asked of it

    def place(self, line: bytes) -> None:
        """As a connection that is there, or is not."""
        if self.leaving:
            raise Unavailable("it is leaving")
        self.got.append(line.decode().split('"')[3])


class Scene:
    """Some workers, and what the ledger would do with tasks."""

    def __init__(self, *slots: int) -> None:
        self.workers = [Worker(f"w{number}", count) for number, count in enumerate(slots)]
        self.places = Places()
        self.places.count(list(self.workers))
        self.back: list[str] = []
        self.sending = Sending(self.places, self._put_back, gevent.get_hub().loop)
        self.count = 0

    def _put_back(self, task: Task) -> None:
        self.back.append(task.id)
        self.places.give(task)
        self.sending.released(task)

    def commit_quickly(self, ended: int) -> None:
        """Have it learn that so many end during a commit."""
        for _ in range(50):
            self.sending.learn(ended)

    def place(self, function: str = "plain") -> Task | None:
        """A task that is placed where there is room, or None; its dispatch is not committed yet."""
        link = self.places.find(function)
        if link is None:
            return None
        self.count += 1
        task = Task("", None, Submit(f"t{self.count}", function, None), b"{}", self.count)
        self.places.take(task, link)
        return task

    def fill(self, function: str = "plain") -> list[Task]:
        """As many as can be placed, each of them committed."""
        placed = []
        while (task := self.place(function)) is not None:
            placed.append(task)
            self.sending.send(task, task.link)
        return placed

    def end(self, task: Any) -> None:
        """It is over."""
        self.places.give(task)
        self.sending.released(task)

    @property
    def sent(self) -> list[str]:
        """The ids of all that left, worker by worker."""
        return [task_id for worker in self.workers for task_id in worker.got]


def test_where_nothing_ends_during_a_commit_nothing_is_placed_ahead() -> None:
    scene = Scene(10, 10)
    assert len(scene.fill()) == len(scene.sent) == 18


def test_what_was_learned_is_forgotten_where_nothing_ends_and_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(10, 10)
    scene.commit_quickly(7)
    scene.sending.learn(0)
    assert scene.places.ahead == 0
    scene.commit_quickly(7)
    scene.sending.age()
    assert scene.places.ahead > 0
    monkeypatch.setattr(sending, "HELD_FOR", 0.0)
    scene.sending.age()
    assert len(scene.fill()) == len(scene.sent) == 18


def test_as_many_are_placed_ahead_as_end_during_a_commit_and_each_leaves_with_the_next_slot() -> None:
    scene = Scene(10, 10)
    scene.commit_quickly(7)
    tasks = scene.fill()
    assert len(tasks) == 18 + scene.places.ahead
    assert 5 <= scene.places.ahead <= 7
    assert len(scene.sent) == 18, "no function takes the last tenth of the slots, nor do those that are ahead"
    assert all(worker.running <= worker.slots for worker in scene.workers)
    for number, task in enumerate(tasks[: scene.places.ahead], 1):
        scene.end(task)
        assert len(scene.sent) == 18 + number
    assert sorted(scene.sent) == sorted(task.id for task in tasks)
    assert scene.back == []


def test_a_slot_of_another_worker_is_not_theirs_but_they_go_back_to_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "HELD_FOR", 0.01)
    scene = Scene(10, 10)
    scene.commit_quickly(4)
    tasks = scene.fill()
    held = [task.id for task in tasks if not task.sent]
    assert held
    with gevent.Timeout(10):
        while sorted(scene.back) != sorted(held):
            gevent.sleep(0.005)
    assert scene.places.ahead == 0, "slots do not become free as they did"
    assert sum(worker.used for worker in scene.workers) == 18
    assert scene.fill() == []


def test_what_is_held_while_slots_become_free_in_time_does_not_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "HELD_FOR", 30.0)
    scene = Scene(10)
    scene.commit_quickly(3)
    tasks = scene.fill()
    scene.end(tasks[0])
    gevent.sleep(0.02)
    assert scene.back == []
    assert len(scene.sent) == 10


def test_a_function_with_a_bound_of_its_own_is_never_placed_ahead() -> None:
    scene = Scene(10)
    scene.commit_quickly(8)
    assert len(scene.fill("capped")) == 2
    assert len(scene.sent) == 2


def test_one_that_is_cancelled_or_lost_while_it_is_held_gives_up_its_turn() -> None:
    scene = Scene(10)
    scene.commit_quickly(4)
    tasks = scene.fill()
    held = [task for task in tasks if not task.sent]
    scene.end(held[0])
    scene.end(tasks[0])
    assert held[0].id not in scene.sent
    assert held[1].id in scene.sent


def test_a_worker_that_leaves_meanwhile_gets_nothing() -> None:
    scene = Scene(10)
    scene.commit_quickly(4)
    tasks = scene.fill()
    scene.end(tasks[0])
    late = scene.place()
    assert late is not None
    held = [task.id for task in tasks[1:] if not task.sent]
    before = list(scene.sent)
    scene.workers[0].leaving = True
    for task in tasks[1:3]:
        scene.end(task)
    scene.sending.send(late, scene.workers[0])
    assert scene.back == [late.id], "it had a slot, and was refused"
    scene.sending.give_up()
    assert scene.back == [late.id, *held]
    assert scene.sent == before


def test_a_process_that_leaves_keeps_nothing_back() -> None:
    scene = Scene(10)
    scene.commit_quickly(4)
    held = [task.id for task in scene.fill() if not task.sent]
    scene.sending.give_up()
    assert scene.back == held


def test_what_is_placed_ahead_does_not_stand_in_the_way_of_a_function_that_has_a_slot() -> None:
    scene = Scene(10)
    scene.commit_quickly(4)
    plain = scene.fill()
    assert len(plain) >= 12, "more than there are slots"
    for _ in range(3):
        capped = scene.place("capped")
        assert capped is not None, "one slot in ten is for others"
        scene.sending.send(capped, capped.link)
        assert capped.sent
        assert scene.place("capped") is None
        scene.end(capped)
        scene.end(plain.pop(0))
        plain += scene.fill()


def test_nothing_waits_for_a_slot_where_another_worker_has_one() -> None:
    scene = Scene(100, 20)
    scene.commit_quickly(10)
    for count in range(1, 109):
        task = scene.place()
        assert task is not None
        scene.sending.send(task, task.link)
        assert len(scene.sent) == count


def test_what_is_placed_ahead_leaves_the_others_as_much_room_as_they_had() -> None:
    scene = Scene(10, 10)
    scene.commit_quickly(8)
    scene.fill()
    scene.sending.learn(0)
    assert scene.places.room("other") == 0
    assert scene.places.room("capped") == 2


def test_a_worker_that_fell_silent_during_the_commit_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(10, 10)
    task = scene.place()
    assert task is not None
    task.link.stale = True
    scene.sending.send(task, task.link)
    assert scene.sent == []
    assert scene.back == [task.id]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_happens_the_counters_say_what_is_there(data: st.DataObject) -> None:
    """Tasks are placed, committed, sent, ended, put back, workers fall silent, come and go: in no order."""
    scene = Scene(*data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    tasks: list[Task] = []
    for _ in range(data.draw(st.integers(1, 60))):
        step = data.draw(st.sampled_from(("learn", "place", "place", "place", "capped", "commit", "commit", "end", "end", "silent", "late")))
        tasks = [task for task in tasks if task.link is not None]
        if step == "learn":
            scene.sending.learn(data.draw(st.integers(0, 20)))
        elif step in ("place", "capped"):
            if (new := scene.place("plain" if step == "place" else "capped")) is not None:
                tasks.append(new)
        elif step == "silent":
            worker = data.draw(st.sampled_from(scene.workers))
            worker.stale = not worker.stale
            scene.places.count([link for link in scene.workers if link.can_be_sent_to])
        elif step == "late":
            scene.sending.give_up()
        elif tasks:
            task = data.draw(st.sampled_from(tasks))
            if step == "commit":
                scene.sending.send(task, task.link)
            elif task.sent:
                scene.end(task)
        check_counters(scene.places, list(scene.workers))
    for worker in scene.workers:
        worker.stale = False
    scene.places.count(list(scene.workers))
    for task in tasks:
        if task.link is not None:
            scene.sending.send(task, task.link)
    scene.sending.give_up()
    while running := [task for worker in scene.workers for task in worker.tasks.values() if task.sent]:
        scene.end(running[0])
        check_counters(scene.places, list(scene.workers))
    assert not [task for worker in scene.workers for task in worker.tasks.values()]
    assert all(worker.used == worker.running == worker.ahead == 0 for worker in scene.workers)
    assert scene.places.room("plain") - scene.places.ahead > 0


@pytest.mark.parametrize("how", ["stale", "leaving"])
def test_what_a_worker_still_has_that_takes_nothing_more_takes_no_place_from_the_others(how: str) -> None:
    scene = Scene(10, 10)
    for task in scene.fill():
        if task.link is scene.workers[1]:
            scene.end(task)
    setattr(scene.workers[0], how, True)
    scene.places.count([scene.workers[1]])
    again = scene.fill()
    assert len(again) == 9
    assert scene.fill("capped") == [] or len(scene.workers[1].tasks) == 10
    setattr(scene.workers[0], how, False)
    scene.places.count(list(scene.workers))
    assert len(scene.fill()) == 0
    for link in list(scene.workers):
        for task in list(link.tasks.values()):
            scene.end(task)
    assert len(scene.fill()) == 18


def test_a_bound_of_its_own_counts_what_a_worker_still_has_that_takes_nothing_more() -> None:
    scene = Scene(10, 10)
    capped = scene.fill("capped")
    assert len(capped) == 2
    scene.workers[0].leaving = True
    scene.places.count([scene.workers[1]])
    assert scene.fill("capped") == []
    scene.end(capped[0])
    assert len(scene.fill("capped")) == 1
