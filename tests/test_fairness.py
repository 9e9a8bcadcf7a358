"""Whose turn it is: owners take turns, priority orders one's own, what is capped holds back only itself, and nobody is forgotten."""

import gc
import weakref
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.fairness import FairQueue, bulkhead
from tests.queueing import Job, Places, drop, push_all


def anywhere(function: str) -> str:
    return "here"


def nowhere(function: str) -> None:
    return None


def served(queue: FairQueue, most: int = 1 << 30) -> list[Job]:
    """Everybody in their turn, where there is always a place."""
    found: list[Job] = []
    while len(found) < most and (one := queue.pop(anywhere)) is not None:
        found.append(one[0])
    return found


# Turns.


def test_a_single_task_behind_a_hundred_thousand_of_another_is_next_but_one() -> None:
    queue = FairQueue()
    push_all(queue, *(Job("many") for _ in range(100_000)))
    served(queue, 10)
    push_all(queue, single := Job("one"))
    assert single in served(queue, 2)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 30))
def test_a_single_task_waits_no_more_turns_than_there_are_owners(backlog: list[int], already_served: int) -> None:
    queue = FairQueue()
    push_all(queue, *(Job(owner) for owner in backlog for _ in range(20)))
    served(queue, already_served)
    push_all(queue, single := Job("single"))
    assert single in served(queue, len(set(backlog)) + 1)


@pytest.mark.parametrize("lanes", [1, 5])
def test_a_task_of_another_function_is_not_starved_while_all_slots_are_taken(lanes: int) -> None:
    """Two kinds of tasks that many owners have in plenty fill the slots; each slot that becomes free is somebody's turn."""
    queue, places = FairQueue(), Places(10, mail=9, report=9)
    push_all(queue, *(Job(("mails", n % lanes), "mail") for n in range(1000)))
    push_all(queue, *(Job(("reports", n % lanes), "report") for n in range(1000)))
    places.fill(queue)
    push_all(queue, single := Job("single", "single"))
    for turn in range(2 * lanes + 1):
        places.end(turn % 10)
        if single in places.fill(queue):
            return
    pytest.fail("it waits behind both of them")


@given(
    st.integers(1, 6), st.lists(st.tuples(st.integers(0, 8), st.sampled_from("abc")), min_size=1, max_size=40), st.lists(st.integers(0, 5))
)
def test_while_all_slots_are_taken_a_new_owner_waits_one_turn_of_each_other(
    slots: int, backlog: list[tuple[int, str]], endings: list[int]
) -> None:
    queue, places = FairQueue(), Places(slots, a=max(1, slots - 1))
    push_all(queue, *(Job(owner, function) for owner, function in backlog for _ in range(20)))
    places.fill(queue)
    for number in endings[: 20 * len(backlog) - 1]:  # while something still runs
        places.end(number % len(places.running))
        places.fill(queue)
    push_all(queue, single := Job("single", "own"))
    waited = 0
    while single not in places.fill(queue):
        waited += 1
        places.end()
        assert waited <= len({owner for owner, _ in backlog}) + 1


def test_owners_take_turns_one_by_one() -> None:
    queue = FairQueue()
    push_all(queue, *(Job("a") for _ in range(3)), *(Job("b") for _ in range(2)), Job("c"))
    assert [job.lane for job in served(queue)] == ["a", "b", "c", "a", "b", "a"]


# One's own order.


@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("fgh")), max_size=40))
def test_priority_orders_ones_own_and_within_it_the_order_of_submission(jobs: list[tuple[int, str]]) -> None:
    queue = FairQueue()
    mine = [Job("me", function, priority) for priority, function in jobs]
    push_all(queue, *mine)
    assert served(queue) == sorted(mine, key=lambda job: (-job.priority, job.order))


def test_priority_does_not_overtake_another_owner() -> None:
    queue = FairQueue()
    push_all(queue, Job("a", priority=1000), Job("a", priority=1000), Job("b", priority=-1000))
    assert [job.lane for job in served(queue)] == ["a", "b", "a"]


def test_one_that_is_put_back_has_its_old_place_among_ones_own() -> None:
    queue = FairQueue()
    push_all(queue, *(Job("me") for _ in range(3)))
    (first,) = served(queue, 1)
    queue.push(first)
    assert served(queue, 1) == [first]


# What is capped.


def test_a_capped_function_holds_back_only_itself() -> None:
    queue, places = FairQueue(), Places(10, capped=1)
    push_all(queue, *(Job("a", "capped", priority=9) for _ in range(5)), *(Job("a") for _ in range(3)), *(Job("b") for _ in range(3)))
    assert Counter(job.function for job in places.fill(queue)) == {"capped": 1, "f": 6}
    assert queue.size == 4


def test_when_a_capped_function_has_a_place_again_the_owner_who_slept_longest_gets_it() -> None:
    queue, places = FairQueue(), Places(10, capped=1)
    push_all(queue, *(Job(lane, "capped") for lane in "abc" for _ in range(2)))
    order = [job.lane for job in places.fill(queue)]
    while places.running:
        places.end()
        order += [job.lane for job in places.fill(queue)]
    assert order == list("abcabc")


def test_an_owner_whose_tasks_were_all_cancelled_takes_nobodys_place() -> None:
    queue, places = FairQueue(), Places(10, capped=1)
    push_all(queue, Job("runs", "capped"), gone := Job("gone", "capped"), waits := Job("waits", "capped"))
    places.fill(queue)
    drop(queue, gone)
    places.end()
    assert places.fill(queue) == [waits]
    assert queue.size == 0


def test_an_owner_who_slept_for_two_functions_and_goes_with_one_is_still_there_for_the_other() -> None:
    queue, places = FairQueue(), Places(1)
    push_all(queue, Job("x", "f"), f := Job("both", "f"), g := Job("both", "g", priority=1))
    places.fill(queue)
    order = []
    for _ in range(2):
        places.end()
        order += places.fill(queue)
    assert order == [g, f]


def test_an_owner_who_went_with_another_function_meanwhile_goes_behind_those_who_only_slept() -> None:
    queue, places = FairQueue(), Places(10, capped=1)
    push_all(queue, Job("runs", "capped"), Job("busy", "capped"), patient := Job("patient", "capped"))
    places.fill(queue)
    push_all(queue, able := Job("busy", "other"))
    assert places.fill(queue) == [able]
    places.end()
    assert places.fill(queue) == [patient]


def test_a_new_task_of_a_sleeping_owner_that_can_go_goes() -> None:
    queue, places = FairQueue(), Places(10, capped=1)
    push_all(queue, *(Job("a", "capped") for _ in range(3)))
    places.fill(queue)
    push_all(queue, able := Job("a", "other"))
    assert places.fill(queue) == [able]


# Bounds.


def test_what_was_cancelled_does_not_stay_in_memory_while_nothing_can_go() -> None:
    """However often somebody submits and cancels while a function has no place: what is held is about what waits."""
    queue = FairQueue()
    held = weakref.WeakSet[Job]()
    push_all(queue, *(Job(("lane", number % 50)) for number in range(100)))
    for number in range(20_000):
        job = Job(("lane", number % 200))
        held.add(job)
        push_all(queue, job)
        assert queue.pop(nowhere) is None
        drop(queue, job)
    del job
    gc.collect()
    assert queue.size == 100
    assert len(held) < 3000
    for function in queue.held_back:
        queue.wake(function, 1000)
    assert len(served(queue)) == 100


def test_an_owner_that_has_nothing_left_is_forgotten() -> None:
    class Owner:
        pass

    queue, owner = FairQueue(), Owner()
    gone = weakref.ref(owner)
    push_all(queue, Job(owner), Job(owner, "g"))
    served(queue)
    del owner
    assert gone() is None


@pytest.mark.parametrize(("slots", "most"), [(1, 1), (2, 1), (5, 4), (9, 8), (10, 9), (11, 9), (100, 90), (101, 90), (1000, 900)])
def test_by_default_no_function_takes_the_last_tenth_of_the_slots(slots: int, most: int) -> None:
    assert bulkhead(slots) == most
