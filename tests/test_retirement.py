"""Workers that leave of their own accord: after so many tasks, past so much memory, with a thread that does not end. No task is lost."""

import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.byhand import Gateway, own_sockets
from tests.effects import check_story, effects, open_gate, runs, said_of
from tests.harness import FINAL, ROOT, Process, Server, TextClient, WsClient, wait_until

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


# A thread that nobody waits for any more; what becomes of its worker is seen at the end of this file, when it has had the time.


class Cancelled(NamedTuple):
    """Two tasks that were cancelled in a thread where nothing can be raised: one ends soon, one does not."""

    server: Server
    worker: int
    late: str


@pytest.fixture(scope="module")
def cancelled() -> Iterator[Cancelled]:
    server = Server(*TASKS, "--workers", "1")
    (worker,) = server.worker_pids()
    with WsClient(server.ws_url) as client:
        both = soon, late = [submit(client, "sleeps_none_thread", seconds) for seconds in (1.0, 600.0)]
        client.until(lambda message: message["id"] == late and message["event"] == "started")
        for task_id in both:
            client.send({"id": task_id, "cancel": True})
        assert {end["event"] for end in endings(client, [soon, late]).values()} == {"cancelled"}
    yield Cancelled(server, worker, late)
    server.clean()


def test_a_thread_whose_task_was_cancelled_has_some_time_to_end(cancelled: Cancelled) -> None:
    assert "worker-tainted" not in cancelled.server.log()
    assert cancelled.server.worker_pids() == [cancelled.worker]


# The number of tasks, and the memory.


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
        wait_until(lambda: len(server.worker_pids()) >= 3, 10, server.log)  # one may just be on its way
        open_gate(gate)
        assert endings(client, [long])[long]["result"] == first.pid
        wait_until(lambda: first.pid not in server.worker_pids() and len(server.worker_pids()) == 2, 10, server.log)
    assert runs(server) == dict.fromkeys([long, *ids], 1)
    warnings = [line for line in server.log().splitlines() if " WARNING " in line]
    busy = ("running-as-root", "hub-blocked: something other than a task")  # the latter is said of a machine that is
    warnings = [line for line in warnings if not any(words in line for words in busy)]
    assert warnings == [], "all of it is as it should be"


def test_a_worker_that_grows_past_its_memory_is_replaced_and_no_task_is_lost(start_server: Callable[..., Server]) -> None:
    server = start_server(*TASKS, "--workers", "2", "--concurrency", "4", "--max-memory", "60MiB")
    with WsClient(server.ws_url) as client:
        ids = [submit(client, "grows", 1 << 20) for _ in range(250)]
        ends = endings(client, ids)
    assert {(end["event"], end["attempt"]) for end in ends.values()} == {("succeeded", 1)}
    assert runs(server) == dict.fromkeys(ids, 1)
    assert len({end["result"] for end in ends.values()}) > 4
    assert "worker-retires: it takes " in server.log()
    assert "--max-memory allows 60" in server.log()


def test_a_limit_that_a_fresh_worker_is_past_already_ends_the_start() -> None:
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
    assert {path.name for path in (worker.data_dir / "run").iterdir()} == {"scoreboard", "scoreboard.lock"}
    worker.clean()


def test_a_worker_stays_until_each_gateway_says_that_it_sends_nothing_more(start_server: Callable[..., Server]) -> None:
    worker = start_server("worker", *TASKS, "--max-tasks", "1")
    (path,) = own_sockets(worker.data_dir)
    with Gateway(path) as gateway:
        gateway.submit("only", "neighbour", [0.0])
        assert gateway.final("only")["event"] == "succeeded"
        assert {"leaving": True} in gateway.heard
        gateway.send({"ack": 2})
        gateway.submit("late", "neighbour", [0.0])
        assert gateway.final("late")["error"]["code"] == "busy"
        with Gateway(path) as another:
            assert another.description["leaving"] is True
            assert another.hear() == {"leaving": True}
            another.send({"leaving": True})
            time.sleep(0.3)  # not for something to happen, but to see that it does not
            assert worker.running()
            gateway.send({"leaving": True})
            assert worker.wait() == 0


def test_a_worker_that_leaves_is_still_bound_by_term(start_server: Callable[..., Server], gate: Path) -> None:
    server = start_server("worker", *TASKS, "--max-tasks", "1", "--graceful", "0.3")
    with TextClient(server.text_address) as client:
        client.send({"id": "a", "function": "gated", "args": [str(gate)]})
        assert client.receive()["event"] == "started"
        wait_until(lambda: "worker-retires" in server.log())
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5


def test_a_thread_that_runs_on_long_after_its_cancel_taints_its_worker(cancelled: Cancelled) -> None:
    server, worker, late = cancelled
    wait_until(lambda: worker not in server.worker_pids() and server.worker_pids(), 15, server.log)
    assert f"worker-tainted: sleeps_none_thread (task {late})" in server.log()
    assert server.log().count("worker-tainted") == 1, "the other one ended in time"
