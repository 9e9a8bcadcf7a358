"""Time limits and cancels, in a greenlet, a thread and a process: what is raised where, and what becomes of those that do not listen."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Server, TextClient, wait_until
from tests.oddities import WAYS

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


def test_a_task_that_ends_in_time_is_not_interrupted_later(client: TextClient) -> None:
    for way in WAYS:
        submit(client, f"naps_limited_{way}", [0.05], way)
    assert [client.receive()["result"] for _ in WAYS] == [0.05] * 3
    for way in WAYS:
        submit(client, f"naps_{way}", [0.35], way)
    assert [client.receive()["result"] for _ in WAYS] == [0.35] * 3


@pytest.mark.parametrize("way", ["greenlet", "process"])
def test_the_task_can_tidy_up(client: TextClient, worker: Server, way: str) -> None:
    submit(client, f"tidies_up_{way}", [60], f"tidy_{way}")
    assert client.receive()["event"] == "timed_out"
    assert (worker.data_dir / f"tidy-tidy_{way}").exists()


@pytest.mark.parametrize("way", ["greenlet", "process"])
def test_what_catches_every_exception_does_not_catch_the_end_of_its_time(client: TextClient, way: str) -> None:
    submit(client, f"catches_exceptions_{way}", [60])
    assert client.receive()["event"] == "timed_out"


def test_those_that_do_not_listen_are_told_again_and_in_the_end_their_process_is_killed(client: TextClient, tmp_path: Path) -> None:
    for way in ("greenlet", "process"):
        submit(client, f"swallows_{way}", [1.5], way)
    for function in ("holds_out", "overruns"):
        submit(client, function, [str(tmp_path / function)], function)
    finals = {message["id"]: message for message in (client.receive() for _ in range(4))}
    assert [finals[way].get("result") for way in ("greenlet", "process")] == [2, 2], "they swallowed it twice"
    assert [finals[name]["event"] for name in ("holds_out", "overruns")] == ["timed_out", "timed_out"]
    assert "time limit" in finals["holds_out"]["error"]["message"]
    assert "hard limit" in finals["overruns"]["error"]["message"]
    wait_until(lambda: all(gone(int(path.read_text())) for path in tmp_path.iterdir()), 5)


def test_a_thread_that_is_timed_out_holds_its_slot_until_it_has_ended() -> None:
    worker = Server("worker", "--tasks", "tests.worker_tasks", "--concurrency", "1")
    with TextClient(worker.text_address) as client:
        began = time.monotonic()
        submit(client, "naps_limited_thread", [0.8])
        assert client.receive()["event"] == "timed_out"
        assert client.ask({"id": "b", "function": "echo"})["error"]["code"] == "busy"
        assert client.ask({"function": "echo", "args": {"waits": "its turn"}}) == {"waits": "its turn"}
        assert time.monotonic() - began > 0.7
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


def test_a_cancel_that_is_swallowed_is_raised_again(client: TextClient) -> None:
    for way in ("greenlet", "process"):
        client.send({"id": way, "function": f"gives_in_{way}", "args": [2]})
        assert client.receive()["event"] == "started"
    time.sleep(0.3)  # until that in the process sleeps too
    for way in ("greenlet", "process"):
        client.send({"id": way, "cancel": True})
    assert {client.receive()["event"], client.receive()["event"]} == {"cancelled"}


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


def test_what_is_cancelled_at_the_end_of_its_connection_ends_then_and_the_rest_goes_on(worker: Server) -> None:
    cases = [(way, kind) for way in WAYS for kind in ("detach", "cancel")]
    notes = {(way, kind): worker.data_dir / f"asked-{way}_{kind}" for way, kind in cases}
    with TextClient(worker.text_address) as client:
        for way, kind in cases:
            task = {"id": f"{way}_{kind}", "function": f"asks_whether_cancelled_{way}", "args": [0.8], "on_disconnect": kind}
            assert client.ask(task)["event"] == "started"
        time.sleep(0.3)  # until those in processes look
    wait_until(lambda: all(note.exists() and note.read_text() for note in notes.values()))
    assert {case: note.read_text() for case, note in notes.items()} == {(way, kind): str(kind == "cancel") for way, kind in cases}
