"""Workers of one's own machine killed, idle and busy, under load: every task has exactly one end, and none that may not runs twice."""

import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import check_story, effects, open_gate, runs, said_of
from tests.harness import FINAL, Server, WsClient, wait_until


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    running = start_server("--tasks", "tests.sample_tasks", "--workers", "2", "--concurrency", "20")
    wait_until(lambda: running.log().count("link-up") == 2)
    return running


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "gate"
    yield path
    open_gate(path)


def submit(client: WsClient, function: str, **args: Any) -> str:
    task_id = uuid.uuid4().hex
    client.send({"id": task_id, "function": function, "args": args})
    return task_id


def endings(client: WsClient, ids: list[str]) -> dict[str, Any]:
    """The last event of each, once all are over; every story is whole."""
    ended: set[str] = {message["id"] for message in client.messages if message.get("event") in FINAL}
    while not ended.issuperset(ids):
        message = client.receive(20)
        if message.get("event") in FINAL:
            ended.add(message["id"])
    for task_id in ids:
        check_story(said_of(client.messages, task_id))
    return {task_id: said_of(client.messages, task_id)[-1] for task_id in ids}


def kill(server: Server, pid: int) -> None:
    """Kill a worker, and wait until another has taken its place and is known to the gateway."""
    known = server.log().count("link-up")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in server.worker_pids() and len(server.worker_pids()) == 2)
    wait_until(lambda: server.log().count("link-up") == known + 1, 10, server.log)


def test_an_idle_worker_that_is_killed_interrupts_nothing_and_is_replaced_within_a_second(server: Server) -> None:
    killed = server.worker_pids()[0]
    with WsClient(server.ws_url) as client:
        began = time.monotonic()
        kill(server, killed)
        assert time.monotonic() - began < 3  # a second, and the noise of a machine
        ids = [submit(client, "mark", seconds=0.05) for _ in range(40)]
        assert {end["event"] for end in endings(client, ids).values()} == {"succeeded"}
        assert {end["result"] for end in endings(client, ids).values()} == set(server.worker_pids())
    assert set(runs(server).values()) == {1}


def test_a_busy_worker_that_is_killed_interrupts_just_what_it_ran(server: Server, gate: Path) -> None:
    with WsClient(server.ws_url) as client:
        ids = [submit(client, "gated", gate=str(gate)) for _ in range(60)]  # 36 have a place, the others wait
        wait_until(lambda: len(effects(server)) == 36)
        ran_there = {effect.id for effect in effects(server) if effect.pid == server.worker_pids()[0]}
        kill(server, server.worker_pids()[0])
        open_gate(gate)
        ends = endings(client, ids)
        assert {task_id for task_id, end in ends.items() if end["event"] == "interrupted"} == ran_there
        assert {ends[task_id]["error"]["code"] for task_id in ran_there} == {"interrupted"}
        assert {end["event"] for task_id, end in ends.items() if task_id not in ran_there} == {"succeeded"}
    assert runs(server) == dict.fromkeys(ids, 1)


def test_what_may_run_again_does_so_and_succeeds(server: Server, gate: Path) -> None:
    with WsClient(server.ws_url) as client:
        ids = [submit(client, "gated_again", gate=str(gate)) for _ in range(30)]
        wait_until(lambda: len(effects(server)) == 30)
        ran_there = {effect.id for effect in effects(server) if effect.pid == server.worker_pids()[0]}
        kill(server, server.worker_pids()[0])
        wait_until(lambda: len(effects(server)) == 30 + len(ran_there))
        open_gate(gate)
        ends = endings(client, ids)
        assert {task_id: (end["event"], end["result"]) for task_id, end in ends.items()} == {
            task_id: ("succeeded", 2 if task_id in ran_there else 1) for task_id in ids
        }
    assert all(count == (2 if task_id in ran_there else 1) for task_id, count in runs(server).items())


def test_under_load_and_kills_at_random_moments_the_ledger_adds_up(server: Server) -> None:
    """A accepted = F with one end each, I interrupted; X, more than one run of what may not be run again, is none."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    once: list[str] = []
    again: list[str] = []
    with WsClient(server.ws_url, timeout=60) as client:
        for number in range(600):
            if number % 3:
                once.append(submit(client, "mark", seconds=chance.random() * 0.02))
            else:
                again.append(submit(client, "gated_again", gate=""))
            if number % 150 == 149:
                time.sleep(chance.random() * 0.05)  # the load is at some point of its way; any will do
                kill(server, chance.choice(server.worker_pids()))
        ends = endings(client, once + again)
    interrupted = {task_id for task_id, end in ends.items() if end["event"] == "interrupted"}
    assert interrupted <= set(once)
    assert {end["event"] for task_id, end in ends.items() if task_id not in interrupted} == {"succeeded"}
    counted = runs(server)
    assert all(counted[task_id] == 1 for task_id in once if task_id not in interrupted)
    assert all(counted[task_id] <= 1 for task_id in interrupted)
    assert all(1 <= counted[task_id] <= ends[task_id]["result"] for task_id in again)
    assert len(ends) == 600
