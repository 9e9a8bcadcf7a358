"""What a worker does with a task that a gateway placed on it: told by attempt, cancelled, recalled. The gateway is driven by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.byhand import Gateway, own_sockets
from tests.harness import Server, TextClient


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


def test_a_placed_task_is_told_under_its_attempt_and_numbered_on(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("a", "gives_greenlet", {"values": [1, 2]}, attempt=3, seq=7)
    final = gateway.final("a")
    assert [event["event"] for event in gateway.events("a")] == ["started", "output", "output", "succeeded"]
    assert numbers(gateway, "a") == [8, 9, 10, 11]
    assert {event["attempt"] for event in gateway.events("a")} == {3}
    assert list(final)[:4] == ["id", "event", "seq", "attempt"], "the gateway reads the head alone"


def test_of_a_task_whose_end_alone_is_wanted_the_end_alone_is_told(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("a", "gives_greenlet", {"values": [1, 2], "result": 3}, seq=1, events="final")
    assert gateway.final("a")["result"] == 3
    assert numbers(gateway, "a") == [2]


@pytest.mark.parametrize(
    ("function", "args", "code"),
    [
        ("no_such_function", {}, "unknown_function"),
        ("naps_greenlet", {}, "bad_arguments"),
        ("naps_greenlet", {"seconds": "x"}, "bad_arguments"),
    ],
)
def test_one_that_cannot_begin_ends_with_a_report_because_it_was_accepted(
    connect: Callable[..., Gateway], function: str, args: Any, code: str
) -> None:
    gateway = connect()
    gateway.submit("a", function, args, attempt=2, seq=4)
    final = gateway.final("a")
    assert (final["event"], final["seq"], final["attempt"], final["error"]["code"]) == ("failed", 5, 2, code)


def test_past_its_slots_a_task_is_not_begun_and_may_come_again(connect: Callable[..., Gateway], worker: Server) -> None:
    gateway = connect()
    assert gateway.description["slots"] == 10
    for number in range(11):
        gateway.submit(f"t{number}", "naps_greenlet", [0.3], events="final")
    busy = gateway.final("t10")
    assert (busy["attempt"], busy["error"]["code"]) == (1, "busy")
    assert "event" not in busy
    assert all(gateway.final(f"t{number}")["event"] == "succeeded" for number in range(10)), "a gateway has done its own counting"
    gateway.heard.remove(busy)
    gateway.submit("t10", "naps_greenlet", [0])
    assert gateway.final("t10")["event"] == "succeeded"


def test_the_same_attempt_that_comes_twice_runs_once(connect: Callable[..., Gateway], worker: Server) -> None:
    gateway = connect()
    for _ in range(2):
        gateway.submit("twice", "mark", {"seconds": 0.1}, events="final")
    while len(gateway.heard) < 2:
        gateway.hear()
    refusal, final = gateway.heard
    assert (refusal["error"]["code"], final["event"]) == ("id_conflict", "succeeded")
    gateway.settle()
    assert (worker.data_dir / "effects").read_text().count("twice ") == 1


# Cancelled, recalled.


def test_a_placed_task_is_cancelled_by_id_and_attempt(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("a", "naps_greenlet", [60])
    gateway.until_event("a", "started")
    gateway.send({"id": "a", "attempt": 2, "cancel": True})
    assert gateway.hear()["error"]["code"] == "unknown_task"
    gateway.heard.clear()
    gateway.send({"id": "a", "attempt": 1, "cancel": True})
    assert gateway.final("a")["event"] == "cancelled"


def test_nobody_else_can_cancel_or_recall_it(connect: Callable[..., Gateway], worker: Server) -> None:
    gateway, stranger = connect(), connect()
    gateway.submit("a", "naps_greenlet", [0.2], events="final")
    with TextClient(worker.text_address) as client:
        for verb in ("cancel", "recall"):
            stranger.send({"id": "a", "attempt": 1, verb: True})
            assert stranger.receive()["error"]["code"] == "unknown_task"
            assert client.ask({"id": "a", "attempt": 1, verb: True})["error"]["code"] == "unknown_task"
    assert gateway.final("a")["event"] == "succeeded"


def test_what_has_not_begun_is_returned_and_never_runs(connect: Callable[..., Gateway], worker: Server) -> None:
    gateway = connect()
    gateway.send(
        b'{"id":"r","function":"mark","args":{},"attempt":1,"seq":5,"dispatch":1}\n'
        b'{"id":"r","attempt":1,"recall":true}\n'
        b'{"id":"r","attempt":1,"recall":true}\n'
    )
    assert gateway.hear() == {"id": "r", "event": "returned", "seq": 5, "attempt": 1}
    assert gateway.hear()["error"]["code"] == "unknown_task"
    gateway.settle()
    effects = worker.data_dir / "effects"
    assert not effects.exists() or "r 1 " not in effects.read_text()
    gateway.heard.clear()
    gateway.submit("r", "mark")
    assert gateway.final("r")["event"] == "succeeded", "it may be placed here again, as the same attempt"


def test_what_has_begun_ignores_a_recall(connect: Callable[..., Gateway]) -> None:
    gateway = connect()
    gateway.submit("a", "naps_greenlet", [0.2])
    gateway.until_event("a", "started")
    gateway.send({"id": "a", "attempt": 1, "recall": True})
    assert gateway.final("a")["event"] == "succeeded"
    assert [event["event"] for event in gateway.events("a")] == ["started", "succeeded"]


def test_while_the_hub_is_held_nothing_begins_and_all_of_it_is_returned(connect: Callable[..., Gateway], worker: Server) -> None:
    gateway = connect()
    gateway.submit("spin", "spins", [0.5])
    gateway.until_event("spin", "started")
    for number in range(5):
        gateway.submit(f"t{number}", "mark")
        gateway.send({"id": f"t{number}", "attempt": 1, "recall": True})
    for number in range(5):
        assert gateway.until_event(f"t{number}", "returned")
    assert gateway.final("spin")["event"] == "succeeded"
