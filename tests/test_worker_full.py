"""The Text port in the full form: many tasks on one connection, told apart by id; and who gets a slot when they are few."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import FINAL, Server, TextClient


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    running = Server("worker", "--tasks", "tests.worker_tasks")
    yield running
    running.clean()


@pytest.fixture
def client(worker: Server) -> Iterator[TextClient]:
    with TextClient(worker.text_address) as one:
        yield one


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A worker with ten slots, of which one function takes nine."""
    running = Server("worker", "--tasks", "tests.worker_tasks", "--concurrency", "10")
    yield running
    running.clean()


def finals(client: TextClient, number: int) -> dict[str, Any]:
    """So many final events, or refusals, by id."""
    found: dict[str, Any] = {}
    while len(found) < number:
        message = client.receive()
        if message.get("event") in FINAL or "event" not in message:
            found[message["id"]] = message
    return found


# One task, many tasks.


def test_a_task_is_told_from_its_start_to_its_end(client: TextClient, worker: Server) -> None:
    client.send({"id": "6f1c-A_z", "function": "gives_greenlet", "args": {"values": ["v"], "result": "r"}, "priority": 5, "events": "all"})
    head = {"id": "6f1c-A_z", "attempt": 1}
    started = client.receive()
    assert started == {**head, "event": "started", "seq": 1, "worker": started["worker"]}
    assert client.receive() == {**head, "event": "output", "seq": 2, "value": "v"}
    assert client.receive() == {**head, "event": "succeeded", "seq": 3, "result": "r"}


def test_started_is_told_before_a_function_that_holds_the_hub(client: TextClient) -> None:
    began = time.monotonic()
    client.send({"id": "a", "function": "spins", "args": [0.6]})
    assert client.receive()["event"] == "started"
    assert time.monotonic() - began < 0.5
    assert client.receive()["event"] == "succeeded"


def test_only_the_end_where_no_more_is_wanted(client: TextClient) -> None:
    client.send({"id": "a", "function": "tells_greenlet", "args": [5], "events": "final"})
    final = client.receive()
    assert (final["event"], final["result"]) == ("succeeded", 5)


def test_many_tasks_run_side_by_side_on_one_connection(client: TextClient) -> None:
    began = time.monotonic()
    for number in range(50):
        client.send({"id": f"t{number}", "function": "sleep", "args": [0.3], "events": "final"})
    assert {message["event"] for message in finals(client, 50).values()} == {"succeeded"}
    assert time.monotonic() - began < 3


def test_a_short_task_overtakes_a_long_one_and_each_is_told_by_its_id(client: TextClient) -> None:
    client.send({"id": "long", "function": "sleep", "args": [0.5], "events": "final"})
    client.send({"id": "short", "function": "echo", "args": {"n": 1}, "events": "final"})
    assert [client.receive()["id"], client.receive()["id"]] == ["short", "long"]


def test_both_forms_may_share_a_connection(client: TextClient) -> None:
    client.send({"id": "a", "function": "sleep", "args": [0.2], "events": "final"})
    assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
    assert client.receive()["id"] == "a"


def test_an_id_that_is_at_work_is_refused_and_free_again_after_its_end(client: TextClient, worker: Server) -> None:
    client.send({"id": "a", "function": "sleep", "args": [0.3], "events": "final"})
    refusal = client.ask({"id": "a", "function": "echo"})
    assert (refusal["id"], refusal["error"]["code"]) == ("a", "id_conflict")
    with TextClient(worker.text_address) as other:
        assert other.ask({"id": "a", "function": "echo", "events": "final"})["event"] == "succeeded", "an id is a label of one connection"
    assert client.receive()["result"] == 0.3
    assert client.ask({"id": "a", "function": "echo", "events": "final"})["event"] == "succeeded"


def test_a_half_closed_caller_is_told_everything_yet(client: TextClient) -> None:
    client.send({"id": "a", "function": "countdown", "args": [3, 0.05]})
    client.half_close()
    events = [client.receive()["event"] for _ in range(6)]
    assert events == ["started", "output", "output", "output", "output", "succeeded"]
    assert client.receive_line() == b""


def test_tasks_that_never_block_do_not_starve_the_others(client: TextClient, worker: Server) -> None:
    stop = threading.Event()

    def flood() -> None:
        with TextClient(worker.text_address) as one:
            while not stop.is_set():
                one.send(b'{"function":"echo","args":{}}\n' * 500)
                for _ in range(500):
                    one.receive_line()

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        slowest = 0.0
        for _ in range(30):
            began = time.monotonic()
            assert client.ask({"ping": 1}) == {"pong": 1}
            slowest = max(slowest, time.monotonic() - began)
    finally:
        stop.set()
        flooding.join(20)
    assert slowest < 0.5


# What it tells of itself.


def test_describe_tells_what_there_is_and_who_it_is(client: TextClient, worker: Server) -> None:
    told = client.ask({"describe": True})["describe"]
    functions = {entry["name"]: entry for entry in told["functions"]}
    assert {"echo", "sleep", "countdown", "primes", "fail", "send_mail", "send_mails", "naps_thread"} <= functions.keys()
    assert [parameter["name"] for parameter in functions["send_mail"]["params"]][:4] == ["from", "to", "contents", "subject"]
    assert functions["naps_limited_thread"]["options"]["time_limit"] == 0.3
    assert functions["naps_limited_thread"]["options"]["run_in"] == "thread"
    assert (told["pid"], told["slots"], told["process_slots"], told["siblings"]) == (worker.pid, 100, 1, 1)
    assert len(told["instance"]) == 32
    assert (worker.data_dir / "run" / f"worker-{told['instance']}.sock").is_socket()


@pytest.mark.parametrize("value", [7, "x", None, [1, {"a": "مرحبا"}], True, 1e300])
def test_a_ping_gives_back_what_came_with_it(client: TextClient, value: Any) -> None:
    assert client.ask({"ping": value}) == {"pong": value}


# Slots.


def test_by_default_no_function_takes_the_last_slots(small: Server) -> None:
    with TextClient(small.text_address) as client:
        for number in range(12):
            client.send({"id": f"t{number}", "function": "naps_greenlet", "args": [0.5], "events": "final"})
        assert [client.receive()["error"]["code"] for _ in range(3)] == ["busy"] * 3
        assert client.ask({"id": "other", "function": "echo", "events": "final"})["event"] == "succeeded"
        assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
        assert {message["event"] for message in finals(client, 9).values()} == {"succeeded"}


def test_a_refusal_for_want_of_a_slot_says_when_to_come_again(small: Server) -> None:
    with TextClient(small.text_address) as client:
        for number in range(3):
            client.send({"id": f"t{number}", "function": "two_at_once", "args": [0.3], "events": "final"})
        refusal = client.receive()
        assert (refusal["id"], refusal["error"]["code"]) == ("t2", "busy")
        assert refusal["error"]["retry_after"] > 0
        assert finals(client, 2).keys() == {"t0", "t1"}
        assert client.ask({"id": "t2", "function": "two_at_once", "args": [0], "events": "final"})["event"] == "succeeded"


def test_in_the_short_form_they_wait_for_a_slot_and_no_more_run_than_may(small: Server) -> None:
    clients = [TextClient(small.text_address) for _ in range(6)]
    began = time.monotonic()
    for client in clients:
        client.send({"function": "two_at_once", "args": [0.2]})
    assert [client.receive() for client in clients] == [0.2] * 6
    assert 0.55 < time.monotonic() - began < 3
    for client in clients:
        client.close()


def test_while_all_slots_are_taken_connections_are_still_accepted_and_wait_their_turn() -> None:
    worker = Server("worker", "--tasks", "tests.worker_tasks", "--concurrency", "1")
    clients = [TextClient(worker.text_address) for _ in range(4)]
    for client in clients:
        client.send({"function": "sleep", "args": [0.2]})
    with TextClient(worker.text_address) as late:
        began = time.monotonic()
        assert late.ask({"ping": 1}) == {"pong": 1}
        assert time.monotonic() - began < 0.7
        assert late.ask({"id": "a", "function": "echo"})["error"]["code"] == "busy"
    assert [client.receive() for client in clients] == [0.2] * 4
    for client in clients:
        client.close()
    worker.clean()


def test_with_one_slot_tasks_follow_each_other_without_a_pause() -> None:
    """Fifty short ones, a connection each, four at a time: a process that stood back 50 ms before each would take 2.5 s."""
    worker = Server("worker", "--concurrency", "1")

    def ask() -> None:
        for _ in range(25):
            with TextClient(worker.text_address) as client:
                assert client.ask({"function": "sleep", "args": [0.001]}) == 0.001

    asking = [threading.Thread(target=ask) for _ in range(4)]
    began = time.monotonic()
    for one in asking:
        one.start()
    for one in asking:
        one.join(30)
    assert time.monotonic() - began < 1.5
    worker.clean()


def test_a_process_that_is_busy_stands_back_for_one_that_is_idle() -> None:
    """Two processes with one slot each at one listener: the second caller never waits for the first."""
    server = Server("--workers", "2", "--concurrency", "1")
    for _ in range(6):
        with TextClient(server.text_address) as first:
            first.send({"id": "a", "function": "sleep", "args": [0.4]})
            assert first.receive()["event"] == "started"
            with TextClient(server.text_address) as second:
                assert second.ask({"function": "sleep", "args": [0.001]}) == 0.001
            first.send({"id": "a", "cancel": True})
            assert first.receive()["event"] == "cancelled", "the second waited for the first to end"
    server.clean()
