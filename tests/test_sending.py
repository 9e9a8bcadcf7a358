"""Dispatches that are committed ahead of a free slot: how many, who leaves with the next slot, and who goes back to the queue."""

import gevent
import pytest

from app import sending
from tests.placing import Scene


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


def test_a_worker_that_fell_silent_during_the_commit_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(10, 10)
    task = scene.place()
    assert task is not None
    task.link.stale = True
    scene.sending.send(task, task.link)
    assert scene.sent == []
    assert scene.back == [task.id]
