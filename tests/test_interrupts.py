"""Time limits and cancels, in a greenlet, a thread and a process: what is raised where, and what becomes of those that do not listen."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Server, TextClient, wait_until
from tests.worker_tasks import WAYS

each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    running = Server("worker", "--tasks", "tests.worker_tasks", "--process-slots", "4")
    yield running
    running.clean()


@pytest.fixture
def client(worker: Server) -> Iterator[TextClient]:
    with TextClient(worker.text_address) as one:
        yield one


def submit(client: TextClient, function: str, args: Any, task_id: str = "a") -> None:
    """Start a task, of which only the end is told."""
    client.send({"id": task_id, "function": function, "args": args, "events": "final"})


def gone(pid: int) -> bool:
    """Whether there is no such process any more."""
    return not Path(f"/proc/{pid}").exists()


# Time limits.


@each_way
def test_a_task_that_blocks_past_its_limit_is_timed_out_then_and_there(client: TextClient, way: str) -> None:
    began = time.monotonic()
    submit(client, f"naps_limited_{way}", [1.5])
    final = client.receive()
    assert (final["event"], final["error"]["code"]) == ("timed_out", "timed_out")
    assert "0.3 s" in final["error"]["message"]
    assert 0.25 < time.monotonic() - began < 1.4 + (way == "process") * 3


@each_way
def test_a_task_that_ends_in_time_is_not_interrupted_later(client: TextClient, way: str) -> None:
    for number in range(2):
        submit(client, f"naps_limited_{way}", [0.05])
        assert client.receive()["result"] == 0.05
        submit(client, f"naps_{way}", [0.35], f"next{number}")
        assert client.receive()["result"] == 0.35


@pytest.mark.parametrize("way", ["greenlet", "process"])
def test_the_task_can_tidy_up(client: TextClient, worker: Server, way: str) -> None:
    submit(client, f"tidies_up_{way}", [60], f"tidy_{way}")
    assert client.receive()["event"] == "timed_out"
    assert (worker.data_dir / f"tidy-tidy_{way}").exists()


@pytest.mark.parametrize("way", ["greenlet", "process"])
def test_what_catches_every_exception_does_not_catch_the_end_of_its_time(client: TextClient, way: str) -> None:
    submit(client, f"catches_exceptions_{way}", [60])
    assert client.receive()["event"] == "timed_out"


@pytest.mark.parametrize("way", ["greenlet", "process"])
def test_a_task_that_swallows_its_interrupt_gets_it_again(client: TextClient, way: str) -> None:
    submit(client, f"swallows_{way}", [1.8])
    final = client.receive()
    assert final["event"] == "succeeded"
    assert final["result"] == 2


def test_a_process_that_does_not_listen_is_killed(client: TextClient, worker: Server, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    submit(client, "holds_out", [str(path)])
    final = client.receive()
    assert (final["event"], final["error"]["code"]) == ("timed_out", "timed_out")
    wait_until(lambda: gone(int(path.read_text())), 5)


def test_a_process_past_its_hard_limit_is_killed(client: TextClient, worker: Server, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    submit(client, "overruns", [str(path)])
    final = client.receive()
    assert (final["event"], final["error"]["code"]) == ("timed_out", "timed_out")
    assert "hard limit" in final["error"]["message"]
    wait_until(lambda: gone(int(path.read_text())), 5)


def test_a_thread_that_is_timed_out_holds_its_slot_until_it_has_ended() -> None:
    worker = Server("worker", "--tasks", "tests.worker_tasks", "--concurrency", "1")
    with TextClient(worker.text_address) as client:
        began = time.monotonic()
        submit(client, "naps_limited_thread", [1.0])
        assert client.receive()["event"] == "timed_out"
        assert client.ask({"id": "b", "function": "echo"})["error"]["code"] == "busy"
        assert client.ask({"function": "echo", "args": {"waits": "its turn"}}) == {"waits": "its turn"}
        assert time.monotonic() - began > 0.9
    worker.clean()


# Cancels.


@each_way
def test_a_task_that_runs_is_cancelled(client: TextClient, way: str) -> None:
    client.send({"id": "a", "function": f"naps_{way}", "args": [60]})
    assert client.receive()["event"] == "started"
    began = time.monotonic()
    final = client.ask({"id": "a", "cancel": True})
    assert (final["event"], final["error"]["code"], final["seq"]) == ("cancelled", "cancelled", 2)
    assert time.monotonic() - began < 5


@each_way
def test_a_task_that_has_not_begun_is_cancelled_without_a_start(client: TextClient, way: str) -> None:
    client.send(b'{"id":"a","function":"naps_%b","args":[60]}\n{"id":"a","cancel":true}\n{"ping":1}\n' % way.encode())
    messages = [client.receive(), client.receive()]
    (final,) = [message for message in messages if "event" in message]
    assert (final["event"], final["seq"]) == ("cancelled", 1)


def test_a_process_that_is_only_starting_is_cancelled_too() -> None:
    worker = Server("worker", "--tasks", "tests.worker_tasks")
    with TextClient(worker.text_address) as client:
        for pause in (0.0, 0.03, 0.1):
            client.send({"id": "a", "function": "naps_process", "args": [60]})
            assert client.receive()["event"] == "started"
            time.sleep(pause)
            assert client.ask({"id": "a", "cancel": True})["event"] == "cancelled"
        wait_until(lambda: len(worker.tree()) <= 2)
        assert client.ask({"function": "where"}) in worker.tree()
    worker.clean()


@each_way
def test_a_task_can_ask_whether_it_was_cancelled(client: TextClient, worker: Server, way: str) -> None:
    note = worker.data_dir / f"asked-ask_{way}"
    submit(client, f"asks_whether_cancelled_{way}", [20], f"ask_{way}")
    assert client.ask({"function": f"asks_whether_cancelled_{way}", "args": [0.2]}) == "never cancelled"
    assert client.ask({"id": f"ask_{way}", "cancel": True})["event"] == "cancelled"
    wait_until(lambda: note.exists() and note.read_text() == "True")


@pytest.mark.parametrize("way", ["greenlet", "process"])
def test_a_cancel_that_is_swallowed_is_raised_again(client: TextClient, way: str) -> None:
    client.send({"id": "a", "function": f"gives_in_{way}", "args": [2]})
    assert client.receive()["event"] == "started"
    if way == "process":
        time.sleep(0.5)  # until it sleeps
    assert client.ask({"id": "a", "cancel": True})["event"] == "cancelled"


def test_a_cancel_of_nothing_is_told_so(client: TextClient) -> None:
    assert client.ask({"id": "nobody", "cancel": True})["error"]["code"] == "unknown_task"
    assert client.ask({"id": "no/id", "cancel": True})["error"]["code"] == "bad_request"
    submit(client, "echo", {})
    assert client.receive()["event"] == "succeeded"
    assert client.ask({"id": "a", "cancel": True})["error"]["code"] == "unknown_task"


@each_way
def test_cancelled_more_than_once_it_ends_once(client: TextClient, way: str) -> None:
    client.send({"id": "a", "function": f"naps_{way}", "args": [60]})
    assert client.receive()["event"] == "started"
    client.send(b'{"id":"a","cancel":true}\n' * 3 + b'{"ping":1}\n')
    answers = [client.receive(), client.receive()]
    while {"pong": 1} not in answers or not any(answer.get("event") == "cancelled" for answer in answers):
        answers.append(client.receive())
    assert [answer for answer in answers if answer.get("event") == "cancelled"] == [answer for answer in answers if "event" in answer]
    assert client.ask({"function": "echo", "args": {"still": "here"}}) == {"still": "here"}


@each_way
def test_what_is_cancelled_at_the_end_of_its_connection_ends_then_and_the_rest_goes_on(worker: Server, way: str) -> None:
    notes = [worker.data_dir / f"asked-{way}_{kind}" for kind in ("detach", "cancel")]
    with TextClient(worker.text_address) as client:
        for note in notes:
            client.send(
                {
                    "id": note.name.removeprefix("asked-"),
                    "function": f"asks_whether_cancelled_{way}",
                    "args": [1.0],
                    "on_disconnect": note.name.rpartition("_")[2],
                }
            )
        assert {client.receive()["event"], client.receive()["event"]} == {"started"}
        if way == "process":
            time.sleep(0.3)
    wait_until(lambda: all(note.exists() and note.read_text() for note in notes))
    assert [note.read_text() for note in notes] == ["False", "True"]
