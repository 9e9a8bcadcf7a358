"""Workers that leave of their own accord: after so many tasks, past so much memory, with a thread that does not end. No task is lost."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import check_story, effects, open_gate, runs, said_of
from tests.harness import FINAL, Process, ROOT, Server, TextClient, WsClient, wait_until

TASKS = ("--tasks", "tests.sample_tasks", "--tasks", "tests.stubborn_tasks")


def submit(client: WsClient, function: str, *args: Any) -> str:
    task_id = uuid.uuid4().hex
    client.send({"id": task_id, "function": function, "args": list(args)})
    return task_id


def endings(client: WsClient, ids: list[str]) -> dict[str, Any]:
    """The last event of each, once all are over; every story is whole."""
    over: set[str] = set()
    while not over.issuperset(ids):
        message = client.receive(30)
        if message.get("event") in FINAL:
            over.add(message["id"])
    for task_id in ids:
        check_story(said_of(client.messages, task_id))
    return {task_id: said_of(client.messages, task_id)[-1] for task_id in ids}


def test_under_load_workers_are_replaced_and_no_task_is_lost_or_run_twice(start_server: Callable[..., Server], gate: Path) -> None:
    server = start_server(*TASKS, "--workers", "2", "--max-tasks", "40")
    with WsClient(server.ws_url) as client:
        long = submit(client, "gated", str(gate))
        (first,) = wait_until(lambda: effects(server, long))
        ids = [submit(client, "mark", "", 0.01 * (number % 5)) for number in range(300)]
        ends = endings(client, ids)
        assert {end["event"] for end in ends.values()} == {"succeeded"}
        assert {said_of(client.messages, task_id)[-1]["attempt"] for task_id in ids} == {1}
        ran = [end["result"] for end in ends.values()]
        assert max(ran.count(pid) for pid in set(ran)) <= 40
        assert len(set(ran)) >= 8
        assert first.pid in server.worker_pids(), "what runs there may take its time, and another serves in its place"
        assert len(server.worker_pids()) >= 3
        open_gate(gate)
        assert endings(client, [long])[long]["result"] == first.pid
        wait_until(lambda: first.pid not in server.worker_pids() and len(server.worker_pids()) == 2, 10, server.log)
    assert runs(server) == dict.fromkeys([long, *ids], 1)
    assert "WARNING master" not in server.log().replace("running as root", "").replace("WARNING master[", "", 1) or os.geteuid() != 0
    assert "link-gone" not in "".join(line for line in server.log().splitlines() if "WARNING" in line)


def test_a_worker_that_grows_past_its_memory_is_replaced_and_no_task_is_lost(start_server: Callable[..., Server]) -> None:
    server = start_server(*TASKS, "--workers", "2", "--concurrency", "4", "--max-memory", "120MiB")
    with WsClient(server.ws_url) as client:
        ids = [submit(client, "grows", 1 << 20) for _ in range(250)]
        ends = endings(client, ids)
    assert {(end["event"], end["attempt"]) for end in ends.values()} == {("succeeded", 1)}
    assert runs(server) == dict.fromkeys(ids, 1)
    assert len({end["result"] for end in ends.values()}) > 2
    assert "worker-retires: it takes 1" in server.log()
    assert "--max-memory allows 120" in server.log()


def test_a_limit_that_a_fresh_worker_is_past_already_ends_the_start() -> None:
    import sys

    process = Process([sys.executable, str(ROOT / "run.py"), "--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--max-memory", "5MiB"])
    try:
        assert process.wait() == 2
        assert "--max-memory: a worker takes" in process.log()
    finally:
        process.clean()


def test_a_worker_alone_answers_what_it_began_and_ends_with_0() -> None:
    worker = Server("worker", *TASKS, "--max-tasks", "3")
    with TextClient(worker.text_address) as client:
        for number in range(3):
            client.send({"id": f"n{number}", "function": "neighbour", "args": [0.3], "events": "final"})
        client.send({"id": "n3", "function": "neighbour", "args": [0.3]})
        answers = [client.receive() for _ in range(4)]
        assert sorted(answer.get("event", answer.get("error", {}).get("code")) for answer in answers) == ["busy", *["succeeded"] * 3]
        assert client.receive_line() == b""
    assert worker.wait() == 0
    assert list((worker.data_dir / "run").iterdir()) == []
    worker.clean()


def test_a_worker_that_leaves_is_still_bound_by_term(start_server: Callable[..., Server], gate: Path) -> None:
    server = start_server("worker", *TASKS, "--max-tasks", "1", "--graceful", "0.3")
    with TextClient(server.text_address) as client:
        client.send({"id": "a", "function": "gated", "args": [str(gate)]})
        assert client.receive()["event"] == "started"
        wait_until(lambda: "worker-retires" in server.log())
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5


@pytest.fixture
def overstayed(start_server: Callable[..., Server]) -> Iterator[Server]:
    yield start_server(*TASKS, "--workers", "1")


def test_a_thread_that_runs_on_long_after_its_cancel_taints_its_worker(overstayed: Server) -> None:
    (worker,) = overstayed.worker_pids()
    with WsClient(overstayed.ws_url) as client:
        soon = submit(client, "sleeps_none_thread", 2.0)
        late = submit(client, "sleeps_none_thread", 600.0)
        for task_id in (soon, late):
            wait_until(lambda: any(event["event"] == "started" for event in said_of(client.messages, late)) or client.receive())
            client.send({"id": task_id, "cancel": True})
        assert {end["event"] for end in endings(client, [soon, late]).values()} == {"cancelled"}
        assert "worker-tainted" not in overstayed.log()
        wait_until(lambda: worker not in overstayed.worker_pids(), 15, overstayed.log)
        assert f"worker-tainted: sleeps_none_thread (task {late})" in overstayed.log()
        assert overstayed.log().count("worker-tainted") == 1, "the other one ended in time"
        assert endings(client, [submit(client, "neighbour", 0)])
