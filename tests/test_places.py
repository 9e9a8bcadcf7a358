"""Which worker has a place for a function, with tasks that are placed ahead and workers that take nothing more; and that nothing is
miscounted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.task import Task
from tests.counters import check_counters
from tests.placing import Scene


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


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_happens_the_counters_say_what_is_there(data: st.DataObject) -> None:
    """Tasks are placed, committed, sent, ended, put back, workers fall silent, come and go: in no order."""
    scene = Scene(*data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    tasks: list[Task] = []
    for _ in range(data.draw(st.integers(1, 60))):
        step = data.draw(
            st.sampled_from(("learn", "place", "place", "place", "capped", "commit", "commit", "end", "end", "silent", "late"))
        )
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
