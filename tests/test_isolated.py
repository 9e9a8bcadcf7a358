"""Processes of their own for tasks: kept warm, replaced when they die, and never left behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.byhand import Gateway, own_sockets
from tests.harness import Server, TextClient, wait_until


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    running = Server("worker", "--tasks", "tests.worker_tasks", "--process-slots", "1")
    yield running
    running.clean()


@pytest.fixture
def client(worker: Server) -> Iterator[TextClient]:
    with TextClient(worker.text_address) as one:
        yield one


def where(client: TextClient) -> int:
    """The process that a task runs in."""
    pid: int = client.ask({"function": "where"})
    return pid


def gone(pid: int) -> bool:
    """Whether it has ended, and its parent knows."""
    return not Path(f"/proc/{pid}").exists()


def test_a_process_is_kept_for_the_next_task(client: TextClient, worker: Server) -> None:
    first = where(client)
    assert first not in (os.getpid(), worker.pid)
    assert {where(client) for _ in range(5)} == {first}


ENDS = {"exit": "exit code 7", "segfault": "signal SIGSEGV", "kill": "signal SIGKILL", "silence": "signal SIGKILL"}


@pytest.mark.parametrize("how", ENDS)
def test_a_task_that_ends_its_process_is_interrupted_and_told_how(client: TextClient, worker: Server, how: str) -> None:
    first = where(client)
    client.send({"id": "a", "function": "dies", "args": [how], "events": "final"})
    final = client.receive()
    assert (final["event"], final["error"]["code"], final["error"]["killed_by"]) == ("interrupted", "interrupted", ENDS[how])
    assert "may or may not" in final["error"]["message"]
    wait_until(lambda: gone(first))
    assert where(client) != first
    assert worker.running()


def test_in_the_short_form_it_is_an_error_too(client: TextClient) -> None:
    assert client.ask({"function": "dies", "args": ["exit"]})["error"]["code"] == "interrupted"


def test_what_may_be_run_again_is_until_its_attempts_are_used_up(worker: Server) -> None:
    (path,) = own_sockets(worker.data_dir)
    with Gateway(path) as gateway:
        for attempt, event in ((1, "retrying"), (2, "failed")):
            gateway.submit(f"a{attempt}", "dies_retryable", ["exit"], attempt=attempt)
            last = gateway.final(f"a{attempt}")
            assert (last["event"], last["error"]["code"]) == (event, "crashed")


def test_a_process_that_died_while_it_was_idle_does_not_get_the_next_task(client: TextClient) -> None:
    first = where(client)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: gone(first))
    assert where(client) != first


def test_a_result_past_what_is_read_of_one_is_too_large_and_the_process_replaced(client: TextClient) -> None:
    first = where(client)
    client.send({"id": "a", "function": "large_process", "args": [65 << 20], "events": "final"})
    final = client.receive(30)
    assert (final["event"], final["error"]["code"]) == ("failed", "too_large")
    assert where(client) != first


def test_their_places_are_counted_apart(client: TextClient) -> None:
    client.send({"id": "one", "function": "naps_process", "args": [60]})
    assert client.receive()["event"] == "started"
    assert client.ask({"id": "two", "function": "where"})["error"]["code"] == "busy"
    assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
    assert client.ask({"id": "one", "cancel": True})["event"] == "cancelled"
    assert where(client)


def test_large_arguments_and_results_go_both_ways(client: TextClient) -> None:
    text = "é" * 100_000 + "x" * 300_000
    assert client.ask({"function": "gives_process", "args": {"values": [], "result": text}}) == text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_none_outlives_its_worker(number: int) -> None:
    worker = Server("worker", "--tasks", "tests.worker_tasks", "--graceful", "0.2")
    with TextClient(worker.text_address) as client:
        where(client)
        client.send({"id": "b", "function": "naps_process", "args": [600]})
        client.until(lambda message: message.get("event") == "started")
    worker.stop(number)
    worker.clean()
