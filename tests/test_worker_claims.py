"""A gateway's tasks do not belong to its connection: lost, claimed again, acknowledged. The gateway is driven by hand."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.byhand import Gateway, dispatch_of, own_sockets
from tests.harness import Server, wait_until


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    running = Server("worker", "--tasks", "tests.worker_tasks,tests.sample_tasks", "--concurrency", "10")
    yield running
    running.clean()


@pytest.fixture
def path(worker: Server) -> str:
    (one,) = own_sockets(worker.data_dir)
    return one


@pytest.fixture
def connect(path: str) -> Iterator[Callable[..., Gateway]]:
    """Connections of gateways, closed at the end."""
    opened: list[Gateway] = []

    def open_one(journal: str = "", claims: list[Any] | None = None) -> Gateway:
        opened.append(Gateway(path, journal, claims))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def numbers(gateway: Gateway, task_id: str) -> list[int]:
    """The numbers of the events that were heard of a task."""
    return [event["seq"] for event in gateway.events(task_id)]


@pytest.mark.parametrize("way", ["greenlet", "thread", "process"])
def test_a_task_goes_on_without_its_connection_and_is_told_when_it_is_claimed(connect: Callable[..., Gateway], way: str) -> None:
    gateway = connect()
    gateway.submit("a", f"gives_{way}", {"values": list(range(20)), "result": "r", "pause": 0.01})
    while len(gateway.events("a")) < 5:
        gateway.hear()
    seen = gateway.events("a")
    gateway.cut()
    time.sleep(0.1)
    again = connect(gateway.journal, [["a", 1, seen[-1]["seq"]]])
    assert again.final("a")["result"] == "r"
    told = seen + again.events("a")
    assert [event["seq"] for event in told] == list(range(2, 24))
    assert [event["value"] for event in told if event["event"] == "output"] == list(range(20))


def test_a_report_that_is_not_acknowledged_is_said_again_and_one_that_is_not(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    for task_id in ("kept", "told"):
        gateway.submit(task_id, "echo", {"n": 1})
        gateway.final(task_id)
    gateway.send({"ack": 2})  # the two events of the first
    gateway.settle()
    gateway.cut()
    again = connect(gateway.journal, [["kept", 1, 1], ["told", 1, 1]])
    again.settle()
    assert [(line["id"], line.get("event")) for line in again.heard] == [("kept", None), ("told", "started"), ("told", "succeeded")]
    assert again.heard[0]["error"]["code"] == "unknown_task"
    assert again.heard[0]["attempt"] == 1
    again.send({"ack": 2})
    again.settle()
    third = connect(gateway.journal, [["told", 1, 3]])
    third.settle()
    assert [line["error"]["code"] for line in third.heard] == ["unknown_task"]


def test_what_was_seen_but_not_acknowledged_is_not_said_twice(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("a", "gives_greenlet", {"values": [1, 2]})
    gateway.final("a")
    gateway.cut()
    again = connect(gateway.journal, [["a", 1, 3]])
    again.settle()
    assert numbers(again, "a") == [4, 5]
    third = connect(gateway.journal, [["a", 1, 5]])
    third.settle()
    assert third.heard == []
    fourth = connect(gateway.journal, [["a", 1, 5]])
    assert fourth.hear()["error"]["code"] == "unknown_task", "it was over and seen, so it was forgotten"


def test_an_acknowledgement_counts_the_reports_of_what_could_not_begin_too(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("bad", "no_such_function")
    gateway.submit("good", "echo")
    gateway.final("good")
    gateway.send({"ack": 1})
    gateway.settle()
    gateway.cut()
    again = connect(gateway.journal, [["good", 1, 1]])
    again.settle()
    assert numbers(again, "good") == [2, 3]


def test_an_attempt_that_is_to_be_tried_again_is_over_here(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("a", "tries_greenlet", {"kind": "named"})
    assert gateway.final("a")["event"] == "retrying"
    gateway.cut()
    again = connect(gateway.journal, [["a", 1, 2]])
    again.settle()
    assert [event["event"] for event in again.events("a")] == ["retrying"]
    again.send({"ack": 1})
    again.settle()
    third = connect(gateway.journal, [["a", 1, 3]])
    assert third.hear()["error"]["code"] == "unknown_task"


def test_what_is_not_claimed_is_disowned_but_runs_to_its_end(connect: Callable[..., Gateway], worker: Server) -> None:
    gateway = connect()
    gateway.submit("over", "echo")
    gateway.final("over")
    gateway.submit("runs", "mark", {"note": "disowned", "seconds": 0.1})
    gateway.until_event("runs", "started")
    gateway.cut()
    again = connect(gateway.journal, [])
    again.settle()
    assert again.events("over") == []
    third = connect(gateway.journal, [["over", 1, 1]])
    assert third.hear()["error"]["code"] == "unknown_task"
    wait_until(lambda: "disowned" in (worker.data_dir / "effects").read_text())


def test_a_task_of_another_attempt_is_another_task(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("a", "echo", attempt=1)
    gateway.final("a")
    gateway.cut()
    again = connect(gateway.journal, [["a", 2, 1], ["a", 3, 1, dispatch_of("a", 1)]])
    returned, refusal = again.hear(), again.hear()
    assert (returned["id"], returned["attempt"], returned["event"]) == ("a", 2, "returned"), "it never came"
    assert (refusal["id"], refusal["attempt"], refusal["error"]["code"]) == ("a", 3, "unknown_task"), "its dispatch did"


def test_a_task_that_never_came_is_returned_and_one_that_ran_and_was_forgotten_is_not(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("ran", "echo")
    gateway.final("ran")
    gateway.send({"ack": 2})
    gateway.settle()
    gateway.cut()
    again = connect(gateway.journal, [["ran", 1, 1], ["never", 1, 1, time.monotonic_ns()]])
    assert [(line["id"], line.get("event")) for line in (again.hear(), again.hear())] == [("ran", None), ("never", "returned")]


def test_what_is_still_read_from_a_connection_that_another_has_followed_is_not_begun(connect: Callable[..., Gateway]) -> None:
    old = connect()
    old.submit("held", "naps_greenlet", [0.3])
    old.until_event("held", "started")
    new = connect(old.journal, [["held", 1, 2], ["late", 1, 1, time.monotonic_ns()]])
    assert new.until_event("late", "returned")
    old.submit("late", "mark")
    old.send({"id": "held", "attempt": 1, "cancel": True})
    assert new.final("held")["event"] == "succeeded"
    new.settle()
    assert new.events("late") == [{"id": "late", "event": "returned", "seq": 1, "attempt": 1}]


def test_gateways_are_told_apart_by_their_journals(connect: Callable[..., Gateway]) -> None:
    one, other = connect(), connect()
    for gateway, number in ((one, 1), (other, 2)):
        gateway.submit("same", "echo", {"n": number}, events="final")
    assert (one.final("same")["result"], other.final("same")["result"]) == ({"n": 1}, {"n": 2})
    stranger = connect("", [["same", 1, 1]])
    assert stranger.hear()["event"] == "returned", "from this one nothing ever came"


def test_a_new_connection_takes_over_before_the_old_one_has_ended(connect: Callable[..., Gateway]) -> None:
    """The worker may hear of the new one first. What is said goes there, once; what the old one still says is not counted."""
    old = connect()
    old.submit("a", "gives_greenlet", {"values": [1, 2, 3], "pause": 0.15})
    old.until_event("a", "output")
    seen = max(event["seq"] for event in old.events("a")) if old.events("a") else 3
    new = connect(old.journal, [["a", 1, seen]])
    old.send({"ack": 50})
    old.half_close()
    new.send({"ping": 1})
    assert new.final("a")["event"] == "succeeded"
    assert numbers(new, "a") == list(range(seen + 1, 7))
    new.cut()
    third = connect(old.journal, [["a", 1, 1]])
    third.settle()
    assert numbers(third, "a")[-1:] == [6], "nothing of it was acknowledged"


def test_a_task_that_is_claimed_again_can_be_cancelled(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("a", "naps_greenlet", [60])
    gateway.until_event("a", "started")
    gateway.cut()
    again = connect(gateway.journal, [["a", 1, 2]])
    again.send({"id": "a", "attempt": 1, "cancel": True})
    assert again.final("a")["event"] == "cancelled"


def test_of_much_that_was_said_to_nobody_the_ends_are_kept(connect: Callable[..., Gateway]) -> None:
    """Nine million bytes of outputs, and a small report from before them: the outputs are what is let go."""
    gateway = connect()
    gateway.submit("small", "echo", {"n": 1})
    gateway.final("small")
    gateway.submit("talks", "flow", {"count": 90, "pause": 0.002, "width": 100_000})
    gateway.until_event("talks", "started")
    gateway.cut()
    time.sleep(0.8)
    again = connect(gateway.journal, [["small", 1, 1], ["talks", 1, 2]])
    assert again.final("small")["result"] == {"n": 1}
    last = again.final("talks")
    assert (last["event"], last["seq"]) == ("succeeded", 93)
    assert numbers(again, "talks") == sorted(set(numbers(again, "talks")))


def test_a_claim_comes_once_and_first(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.send({"claim": [], "journal": "another"})
    assert gateway.hear()["error"]["code"] == "bad_request"
    gateway.submit("a", "echo", events="final")
    assert gateway.final("a")["event"] == "succeeded"


# The worker leaves.


def test_a_worker_that_leaves_lets_a_gateway_claim_what_still_runs() -> None:
    worker = Server("worker", "--tasks", "tests.worker_tasks")
    (path,) = own_sockets(worker.data_dir)
    gateway = Gateway(path)
    gateway.submit("a", "naps_greenlet", [0.7])
    gateway.until_event("a", "started")
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.1)
    gateway.cut()
    with Gateway(path, gateway.journal, [["a", 1, 2]]) as again:
        again.submit("new", "echo")
        assert again.final("new")["error"]["code"] == "busy"
        assert again.final("a")["event"] == "succeeded"
        again.send({"ack": 1})
        assert worker.wait() == 0
    assert own_sockets(worker.data_dir) == []
    worker.clean()


def test_a_worker_that_leaves_waits_a_moment_until_its_reports_are_in_the_journal() -> None:
    worker = Server("worker", "--tasks", "tests.worker_tasks")
    (path,) = own_sockets(worker.data_dir)
    with Gateway(path) as gateway:
        gateway.submit("a", "echo")
        gateway.final("a")
        os.kill(worker.pid, signal.SIGTERM)
        time.sleep(0.3)
        assert worker.running()
        gateway.send({"ack": 2})
        gateway.send({"leaving": True})
        began = time.monotonic()
        assert worker.wait() == 0
        assert time.monotonic() - began < 1.5
    worker.clean()
