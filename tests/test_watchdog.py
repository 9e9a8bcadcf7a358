"""What blocks the hub is found, named with its stack, and ended, without harm to its neighbours; and what cannot be, with its process."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import FINAL, Server, TextClient, wait_until


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    running = Server("worker", "--tasks", "tests.worker_tasks")
    yield running
    running.clean()


@pytest.fixture
def client(worker: Server) -> Iterator[TextClient]:
    with TextClient(worker.text_address) as one:
        yield one


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Workers of a test's own."""
    started: list[Server] = []

    def start(*flags: str) -> Server:
        started.append(Server("worker", "--tasks", "tests.worker_tasks", *flags))
        return started[-1]

    yield start
    for one in started:
        one.clean()


def submit(client: TextClient, task_id: str, function: str, *args: Any) -> None:
    """Start a task, of which the start and the end are told."""
    client.send({"id": task_id, "function": function, "args": list(args)})


def final(client: TextClient, task_id: str, timeout: float = 10.0) -> Any:
    """The final event of a task."""
    return client.until(lambda message: message.get("id") == task_id and message.get("event") in FINAL, timeout)


def named(worker: Server, task_id: str) -> list[str]:
    """The lines in the log that say that this task holds the hub."""
    return [line for line in worker.log().splitlines() if "hub-blocked" in line and f"task={task_id}:" in line]


def stacks(worker: Server) -> list[Path]:
    """What was written for whoever has to report the end of a process."""
    return list((worker.data_dir / "run").glob("*.stack"))


def test_a_task_that_spins_is_named_with_its_stack_while_it_does(client: TextClient, worker: Server) -> None:
    began = time.monotonic()
    submit(client, "spinner", "spins", 1.2)
    wait_until(lambda: named(worker, "spinner"))
    assert time.monotonic() - began < 1.2
    (line,) = named(worker, "spinner")
    assert "spins has held the hub for 0." in line
    assert "in spins" in line, "the stack, in the same entry"
    assert "worker_tasks.py" in line
    assert "run_in" in line, "and what to do about it"
    assert final(client, "spinner")["event"] == "succeeded"
    assert len(named(worker, "spinner")) == 1, "once is enough"


def test_the_next_one_is_named_too(client: TextClient, worker: Server) -> None:
    submit(client, "again", "spins", 0.5)
    assert final(client, "again")["event"] == "succeeded"
    assert named(worker, "again")


def test_at_its_limit_it_is_ended_and_its_neighbours_are_not(client: TextClient, worker: Server) -> None:
    for number in range(10):
        submit(client, f"neighbour{number}", "naps_greenlet", 0.6)
    submit(client, "yields", "gives_greenlet", list(range(25)), "r", 0.02)
    began = time.monotonic()
    submit(client, "spinner", "spins_limited", 60)
    events: dict[str, list[Any]] = {}
    while not {"spinner", "yields", *(f"neighbour{n}" for n in range(10))} <= {
        task_id for task_id, told in events.items() if told[-1]["event"] in FINAL
    }:
        message = client.receive()
        events.setdefault(message["id"], []).append(message)
        if message["id"] == "spinner" and message["event"] in FINAL:
            assert time.monotonic() - began < 3
    assert events.pop("spinner")[-1]["event"] == "timed_out"
    assert [event["value"] for event in events["yields"] if event["event"] == "output"] == list(range(25))
    assert {told[-1]["event"] for told in events.values()} == {"succeeded"}
    assert worker.running()


def test_one_that_holds_the_hub_within_our_own_code_is_ended_too(client: TextClient) -> None:
    began = time.monotonic()
    submit(client, "teller", "tells_without_end")
    assert final(client, "teller")["event"] == "timed_out"
    assert time.monotonic() - began < 2.5


def test_one_that_spins_in_a_thread_holds_nobody(client: TextClient, worker: Server) -> None:
    submit(client, "threaded", "spins_in_thread", 0.5)
    assert client.receive()["event"] == "started"
    slowest = 0.0
    for _ in range(10):
        began = time.monotonic()
        assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 0.5
    assert final(client, "threaded")["event"] == "succeeded"
    assert named(worker, "threaded") == []


def test_c_code_that_holds_everything_ends_with_its_process_and_its_stack_is_kept(start: Callable[..., Server]) -> None:
    worker = start("--hang-limit", "1.2")
    with TextClient(worker.text_address) as client:
        began = time.monotonic()
        submit(client, "hanger", "hangs", 600)
        assert client.receive()["event"] == "started"
        assert client.receive_line() == b"", "the connection ends with the process"
        assert 0.3 < time.monotonic() - began < 6
    assert worker.wait() != 0
    (path,) = stacks(worker)
    assert "hangs" in path.read_text()
    assert "worker_tasks.py" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_c_code_that_lets_go_in_time_is_left_alone(start: Callable[..., Server]) -> None:
    worker = start("--hang-limit", "4")
    with TextClient(worker.text_address) as client:
        submit(client, "hanger", "hangs", 1)
        assert final(client, "hanger")["result"] == 0
        assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
    assert worker.stop() == 0
    assert stacks(worker) == [], "nothing is left that says nothing"


def test_a_process_in_which_nothing_hangs_goes_on_also_where_the_limit_is_short(start: Callable[..., Server]) -> None:
    worker = start("--hang-limit", "0.8")
    with TextClient(worker.text_address) as client:
        assert client.ask({"function": "sleep", "args": [1.2]}) == 1.2
    assert worker.running()
