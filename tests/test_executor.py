"""However a task ends, in a greenlet, a thread or a process: exactly one final event, the right one, and its slot is free again."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.address import Address
from app.client import TaskConnection
from app.messages import MAX_DELAY
from tests.byhand import Gateway, own_sockets
from tests.harness import FINAL, Server, TextClient
from tests.oddities import ODD_ERRORS, ODD_RESULTS, WAYS

LIMIT = 20.0


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    running = Server("worker", "--tasks", "tests.worker_tasks", "--process-slots", "3")
    yield running
    running.clean()


@pytest.fixture
def connection(worker: Server) -> Iterator[TaskConnection]:
    with TaskConnection(Address(*worker.text_address)) as one:
        yield one


@pytest.fixture(autouse=True)
def every_slot_is_free_again(worker: Server) -> Iterator[None]:
    """After each test: nothing that ended still takes a place, and nothing more is said."""
    yield
    with TextClient(worker.text_address) as client:
        for number in range(2):
            client.send({"id": f"p{number}", "function": "where", "events": "final"})
        assert {client.receive()["event"], client.receive()["event"]} == {"succeeded"}


def run(connection: TaskConnection, function: str, args: Any = None) -> list[dict[str, Any]]:
    """All events of one task, checked as every task's: numbered without a gap, one final event, nothing after it."""
    events = list(connection.events(function, args, LIMIT))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["event"] for event in events if event["event"] in FINAL] == [events[-1]["event"]]
    assert events[0]["event"] == "started"
    assert {event["attempt"] for event in events} == {1}
    assert connection.request({"ping": "nothing more"}) == {"pong": "nothing more"}
    return events


def end(connection: TaskConnection, function: str, args: Any = None) -> dict[str, Any]:
    """The final event alone."""
    return run(connection, function, args)[-1]


each_way = pytest.mark.parametrize("way", WAYS)


# What a task is told, and what it returns.


@each_way
def test_a_task_knows_its_id_and_where_it_runs(connection: TaskConnection, worker: Server, way: str) -> None:
    started, final = run(connection, f"identity_{way}")
    task_id, attempt, function, pid, sleep = final["result"]
    assert (task_id, attempt, function) == (final["id"], 1, f"identity_{way}")
    assert (pid == worker.pid) is (way != "process")
    assert sleep.startswith("gevent") is (way != "process"), "a process of its own is not patched"
    assert started["worker"]


@each_way
@pytest.mark.parametrize("kind", ODD_RESULTS)
def test_a_result_that_is_no_json_is_a_failure_that_says_so(connection: TaskConnection, way: str, kind: str) -> None:
    final = end(connection, f"odd_result_{way}", {"kind": kind})
    assert final["event"] == "failed"
    assert final["error"]["code"] == "failed"
    assert "returned what JSON has no form for" in final["error"]["message"]
    assert len(final["error"]["message"]) < 3000


@each_way
def test_a_result_as_deep_as_a_message_carries_comes_through(connection: TaskConnection, way: str) -> None:
    final = end(connection, f"nested_result_{way}", {"levels": 31})
    assert str(final["result"]) == "[" * 31 + "]" * 31


@each_way
def test_a_result_of_just_the_limit_passes_and_a_larger_one_is_too_large(connection: TaskConnection, way: str) -> None:
    limit = 1 << 20
    assert len(end(connection, f"large_{way}", {"size": limit - 2})["result"]) == limit - 2
    final = end(connection, f"large_{way}", {"size": limit - 1})
    assert (final["event"], final["error"]["code"]) == ("failed", "too_large")


# What a task raises.


@each_way
@pytest.mark.parametrize("kind", ODD_ERRORS)
def test_whatever_is_raised_is_one_final_event(connection: TaskConnection, worker: Server, way: str, kind: str) -> None:
    pids = worker.worker_pids()
    final = end(connection, f"odd_error_{way}", {"kind": kind})
    if kind in ("a cancel of its own", "a time-out of its own"):
        assert final["event"] == final["error"]["code"] == ("cancelled" if "cancel" in kind else "timed_out")
        return
    assert final["event"] == "failed"
    assert final["error"]["code"] == "failed"
    assert len(final["error"]["message"]) < 3000
    if kind == "one of ours":
        assert final["error"] == {"code": "failed", "message": "as told", "sent": 3}
    elif kind == "lone surrogate":
        assert "ValueError: file" in final["error"]["message"]
    assert worker.worker_pids() == pids
    assert end(connection, f"odd_error_{way}", {"kind": "assertion"})["error"]["message"].startswith("AssertionError")


# Generators.


@each_way
def test_each_value_that_is_yielded_is_an_output_and_what_is_returned_the_result(connection: TaskConnection, way: str) -> None:
    values = ["مرحبا", 1, None, {"a": [1.5]}, 10**30]
    events = run(connection, f"gives_{way}", {"values": values, "result": "end"})
    assert [event["value"] for event in events if event["event"] == "output"] == values
    assert events[-1]["result"] == "end"


@each_way
def test_a_value_that_is_no_json_ends_the_generator(connection: TaskConnection, way: str) -> None:
    events = run(connection, f"gives_odd_{way}")
    assert [event["event"] for event in events] == ["started", "output", "failed"]
    assert "yielded what JSON has no form for" in events[-1]["error"]["message"]


@each_way
def test_values_in_plenty_come_out_in_order(connection: TaskConnection, way: str) -> None:
    events = run(connection, f"gives_{way}", {"values": list(range(3000))})
    assert [event["value"] for event in events if event["event"] == "output"] == list(range(3000))


@each_way
def test_a_task_that_yields_without_end_is_stopped_at_what_is_kept_of_one(connection: TaskConnection, way: str) -> None:
    events = run(connection, f"gives_{way}", {"values": list(range(10_500))})
    assert events[-1]["error"]["code"] == "too_large"
    assert len(events) <= 10_001


# Progress.


@each_way
def test_of_much_progress_the_first_and_the_last_are_told_and_few_between(connection: TaskConnection, way: str) -> None:
    events = run(connection, f"tells_{way}", {"count": 200, "seconds": 0.35})
    told = [event for event in events if event["event"] == "progress"]
    assert told[0]["done"] == 1
    assert (told[-1]["done"], told[-1]["total"], told[-1]["note"]) == (200, 200, "step 200")
    assert [event["done"] for event in told] == sorted({event["done"] for event in told})
    assert 3 <= len(told) <= 60


@each_way
def test_progress_without_a_pause_is_two_events(connection: TaskConnection, way: str) -> None:
    told = [event["done"] for event in run(connection, f"tells_{way}", {"count": 500}) if event["event"] == "progress"]
    assert told[0] == 1
    assert told[-1] == 500
    assert len(told) <= 10


@each_way
def test_a_single_progress_is_told_once(connection: TaskConnection, way: str) -> None:
    events = run(connection, f"tells_{way}", {"count": 1})
    assert [event["event"] for event in events] == ["started", "progress", "succeeded"]


@each_way
@pytest.mark.parametrize(
    ("done", "outcome"), [("nan", "ValueError"), ("inf", "ValueError"), ([], "TypeError"), (True, "fine"), (0.5, "fine")]
)
def test_a_progress_that_is_none_is_raised_where_it_was_told(connection: TaskConnection, way: str, done: Any, outcome: str) -> None:
    for _ in range(2):
        assert end(connection, f"tells_odd_{way}", {"done": done})["result"] == outcome


@each_way
def test_a_note_with_the_name_of_some_file_is_told_as_well_as_can_be(connection: TaskConnection, way: str) -> None:
    events = run(connection, f"tells_odd_{way}", {"done": 1, "note": "surrogate"})
    assert events[-1]["result"] == "fine"
    assert events[1]["note"] == "file ?"


@each_way
def test_who_wants_only_the_end_is_told_only_the_end(worker: Server, way: str) -> None:
    with TextClient(worker.text_address) as client:
        final = client.ask({"id": "a", "function": f"gives_{way}", "args": {"values": [1, 2], "result": 3}, "events": "final"}, LIMIT)
        assert (final["event"], final["result"]) == ("succeeded", 3)
        assert client.ask({"ping": 1}) == {"pong": 1}


# Retries, which a gateway alone asks for.


@pytest.fixture
def gateway(worker: Server) -> Iterator[Gateway]:
    (path,) = own_sockets(worker.data_dir)
    with Gateway(path) as one:
        yield one


@each_way
@pytest.mark.parametrize("kind", ["named", "asks", "late"])
def test_what_the_options_name_is_tried_again_while_attempts_are_left(gateway: Gateway, way: str, kind: str) -> None:
    for attempt in (1, 2, 3):
        gateway.submit(f"a{attempt}", f"tries_{way}", {"kind": kind}, attempt=attempt, seq=10)
    for attempt, event in ((1, "retrying"), (2, "retrying"), (3, "timed_out" if kind == "late" else "failed")):
        last = gateway.final(f"a{attempt}")
        assert (last["event"], last["attempt"]) == (event, attempt)
        assert last["error"]["code"] == ("timed_out" if kind == "late" else "failed")
        if event == "retrying":
            assert 0 <= last["after"] < 1
        assert [line["seq"] for line in gateway.events(f"a{attempt}")] == [11, 12]


@each_way
def test_what_the_options_do_not_name_is_not_tried_again(gateway: Gateway, way: str) -> None:
    gateway.submit("a", f"tries_{way}", {"kind": "other"})
    assert gateway.final("a")["event"] == "failed"


@each_way
def test_a_task_may_say_when_it_wants_to_be_tried_again(gateway: Gateway, way: str) -> None:
    gateway.submit("a", f"tries_{way}", {"kind": "asks", "after": 7.5})
    assert gateway.final("a")["after"] == 7.5


@each_way
@pytest.mark.parametrize("detail", [None, 7])
def test_a_task_that_is_not_retryable_may_ask_for_it_too_while_attempts_are_left(gateway: Gateway, way: str, detail: int | None) -> None:
    for attempt, event in ((1, "retrying"), (2, "failed")):
        gateway.submit(f"a{attempt}", f"asks_{way}", {"detail": detail}, attempt=attempt)
        last = gateway.final(f"a{attempt}")
        assert (last["event"], last["error"].get("detail")) == (event, detail)
        assert event == "failed" or 0.18 < last["after"] < 0.32


@each_way
@pytest.mark.parametrize("after", [-5, "nan", "-inf", []])
def test_a_time_that_is_none_is_the_back_off(gateway: Gateway, way: str, after: Any) -> None:
    gateway.submit("a", f"tries_{way}", {"kind": "asks", "after": after})
    last = gateway.final("a")
    assert last["event"] == "retrying"
    assert 0 <= last["after"] < 1


@each_way
@pytest.mark.parametrize("after", ["inf", 1e300])
def test_a_time_that_nobody_waits_is_cut_to_the_longest_delay(gateway: Gateway, way: str, after: Any) -> None:
    gateway.submit("a", f"tries_{way}", {"kind": "asks", "after": after})
    assert gateway.final("a")["after"] == MAX_DELAY


@each_way
def test_for_a_direct_caller_nothing_is_tried_again(connection: TaskConnection, way: str) -> None:
    assert end(connection, f"tries_{way}", {"kind": "named"})["event"] == "failed"
    assert end(connection, f"tries_{way}", {"kind": "asks"})["event"] == "failed"
    assert end(connection, f"tries_{way}", {"kind": "late"})["event"] == "timed_out"
