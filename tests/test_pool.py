"""Workers elsewhere: found behind an address or a load balancer, kept, lost and found again; and what becomes of their tasks."""

import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.balancer import HAPROXY, Balancer, haproxy
from tests.effects import check_story, effects, open_gate, runs, said_of
from tests.harness import Server, WsClient, wait_until
from tests.latehouse import LateGateway
from tests.randomload import Load

LEASE = 1.5


class Elsewhere:
    """Workers that run on their own, each with a port, and with one directory for what they leave behind."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "workers"
        self.open = ExitStack()
        self._directory = directory

    def worker(self, *flags: str) -> Server:
        """One more."""
        worker = Server("worker", "--tasks", "tests.sample_tasks", "--graceful", "0", *flags, data_dir=self.data_dir)
        self.open.callback(worker.clean)
        return worker

    def gateway(self, *addresses: str, workers: int, longest: float = 0) -> LateGateway:
        """A gateway that uses them, and gives one up after a short silence; ready when it has met so many."""
        flags = [flag for address in addresses for flag in ("--pool", address)]
        gateway = LateGateway(
            "--lease", str(LEASE), "--longest", str(longest), *flags, data_dir=self._directory / f"gateway-{uuid.uuid4().hex}"
        )
        self.open.callback(gateway.clean)
        wait_until(lambda: gateway.log().count("link-up") == workers, 10, gateway.log)
        gateway.data_dir = self.data_dir  # where effects are looked for
        return gateway


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    house = Elsewhere(tmp_path)
    with house.open:
        yield house


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "gate"
    yield path
    open_gate(path)


def at(worker: Server) -> str:
    return "{}:{}".format(*worker.text_address)


def submit(client: WsClient, function: str, **args: Any) -> str:
    task_id = uuid.uuid4().hex
    client.send({"id": task_id, "function": function, "args": args})
    return task_id


def story(client: WsClient, task_id: str) -> list[Any]:
    """The events of a task, once it is over."""
    client.final(task_id, 20)
    events = said_of(client.messages, task_id)
    check_story(events)
    return events


def begun(server: Server, *ids: str) -> list[int]:
    """Wait until these have begun; the processes in which they did."""
    wait_until(lambda: all(effects(server, task_id) for task_id in ids))
    return [effects(server, task_id)[-1].pid for task_id in ids]


def kinds(events: list[Any]) -> list[str]:
    return [event["event"] for event in events]


# Found and kept.


def test_every_process_behind_one_address_is_found_and_a_new_one_in_place_of_a_killed_one(
    elsewhere: Elsewhere, start_server: Callable[..., Server], gate: Path
) -> None:
    remote = start_server("--tasks", "tests.sample_tasks", "--workers", "3", data_dir=elsewhere.data_dir)
    gateway = elsewhere.gateway(at(remote), workers=3)
    with WsClient(gateway.ws_url) as client:
        first = [submit(client, "gated", gate=str(gate)) for _ in range(30)]
        assert set(begun(gateway, *first)) == set(remote.worker_pids())
        open_gate(gate)
        killed = remote.worker_pids()[0]
        wait_for_all(client, first)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: gateway.log().count("link-up") == 4, 10, gateway.log)
        second = [submit(client, "mark", seconds=0.05) for _ in range(30)]
        assert set(begun(gateway, *second)) == set(remote.worker_pids())
        assert killed not in remote.worker_pids()
    assert set(runs(gateway).values()) == {1}


@pytest.mark.parametrize(
    "kind", ["python", pytest.param("haproxy", marks=pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed"))]
)
def test_workers_behind_a_load_balancer_are_all_used(elsewhere: Elsewhere, tmp_path: Path, gate: Path, kind: str) -> None:
    workers = [elsewhere.worker() for _ in range(2)]
    targets = [worker.text_address for worker in workers]
    if kind == "python":
        address = elsewhere.open.enter_context(Balancer(targets)).address
    else:
        address = elsewhere.open.enter_context(haproxy(targets, tmp_path))
    gateway = elsewhere.gateway(address, workers=2)
    with WsClient(gateway.ws_url) as client:
        ids = [submit(client, "gated", gate=str(gate)) for _ in range(10)]
        pids = begun(gateway, *ids)
        assert [pids.count(worker.pid) for worker in workers] == [5, 5]
        open_gate(gate)
        assert [kinds(story(client, task_id))[-1] for task_id in ids[-1:]] == ["succeeded"]


# The connection is lost, the worker is not.


def test_a_task_whose_connection_is_cut_runs_on_and_all_of_it_is_told(elsewhere: Elsewhere, gate: Path) -> None:
    workers = [elsewhere.worker() for _ in range(2)]
    balancer = elsewhere.open.enter_context(Balancer([worker.text_address for worker in workers]))
    gateway = elsewhere.gateway(balancer.address, workers=2)
    with WsClient(gateway.ws_url) as client:
        flows = [submit(client, "flow", count=200, pause=0.003) for _ in range(4)]
        gated = [submit(client, "gated", gate=str(gate)) for _ in range(4)]
        begun(gateway, *flows, *gated)
        for _ in range(3):
            ups = gateway.log().count("link-up")
            balancer.cut()
            wait_until(lambda: gateway.log().count("link-lost") >= ups)  # noqa: B023 - used up at once
            balancer.mend()
            wait_until(lambda: gateway.log().count("link-up") == ups + 2, 10, gateway.log)  # noqa: B023
        open_gate(gate)
        wait_for_all(client, [*flows, *gated])
        for task_id in flows:
            events = said_of(client.messages, task_id)
            check_story(events)
            assert [event["value"] for event in events if event["event"] == "output"] == [f"{number}:" for number in range(200)]
        for task_id in gated:
            assert kinds(said_of(client.messages, task_id)) == ["accepted", "started", "succeeded"]
    assert set(runs(gateway).values()) == {1}


def test_while_connections_are_cut_again_and_again_and_commits_come_late_the_ledger_adds_up(elsewhere: Elsewhere) -> None:
    """What was lost on its way is interrupted or tried again; nothing runs twice, and everybody is told the same."""
    workers = [elsewhere.worker() for _ in range(2)]
    balancer = elsewhere.open.enter_context(Balancer([worker.text_address for worker in workers]))
    gateway = elsewhere.gateway(balancer.address, workers=2, longest=0.02)
    load = Load(gateway, random.randrange(1 << 30))
    for count in range(40, 801, 40):
        load.run(count)
        time.sleep(random.random() * 0.1)  # any moment will do
        balancer.cut()
        balancer.mend()
    load.check(load.stories())
    assert "promise-broken" not in gateway.log()
    assert "Traceback" not in gateway.log()
    assert gateway.log().count("link-lost") > 10


def test_a_cancel_while_the_connection_is_cut_arrives_with_the_next(elsewhere: Elsewhere, gate: Path) -> None:
    worker = elsewhere.worker()
    balancer = elsewhere.open.enter_context(Balancer([worker.text_address]))
    gateway = elsewhere.gateway(balancer.address, workers=1)
    with WsClient(gateway.ws_url) as client:
        task_id = submit(client, "gated", gate=str(gate))
        begun(gateway, task_id)
        assert client.until(lambda message: message.get("event") == "started")
        balancer.cut()
        wait_until(lambda: "link-lost" in gateway.log())
        client.send({"id": task_id, "cancel": True})
        assert client.ask({"ping": 1}) == {"pong": 1}
        balancer.mend()
        assert kinds(story(client, task_id)) == ["accepted", "started", "cancelled"]


# The worker is lost.


def test_the_tasks_of_a_worker_that_died_are_interrupted_once_or_tried_again_elsewhere(elsewhere: Elsewhere, gate: Path) -> None:
    workers = [elsewhere.worker() for _ in range(2)]
    gateway = elsewhere.gateway(*map(at, workers), workers=2)
    with WsClient(gateway.ws_url) as client:
        once = [submit(client, "gated", gate=str(gate)) for _ in range(6)]
        again = [submit(client, "gated_again", gate=str(gate)) for _ in range(6)]
        where = dict(zip(once + again, begun(gateway, *once, *again), strict=True))
        workers[0].kill()
        lost = [task_id for task_id in where if where[task_id] == workers[0].pid]
        wait_until(lambda: all(len(effects(gateway, task_id)) == 2 for task_id in again if task_id in lost))
        open_gate(gate)
        wait_for_all(client, [*once, *again])
    told = {task_id: said_of(client.messages, task_id) for task_id in where}
    for events in told.values():
        check_story(events)
    assert {task_id for task_id in once if told[task_id][-1]["event"] == "interrupted"} == set(lost) & set(once)
    assert len(set(lost) & set(once)) == 3
    assert {told[task_id][-1]["error"]["code"] for task_id in set(lost) & set(once)} == {"interrupted"}
    for task_id in set(lost) & set(again):
        assert kinds(told[task_id]) == ["accepted", "started", "retrying", "started", "succeeded"]
        assert told[task_id][-1]["result"] == 2
    assert all(count == (2 if task_id in lost and task_id in again else 1) for task_id, count in runs(gateway).items())


def test_a_task_whose_workers_all_die_fails_as_crashed_once_its_attempts_are_used_up(elsewhere: Elsewhere, gate: Path) -> None:
    workers = {worker.pid: worker for worker in (elsewhere.worker() for _ in range(3))}
    gateway = elsewhere.gateway(*map(at, workers.values()), workers=3)
    with WsClient(gateway.ws_url) as client:
        task_id = submit(client, "gated_again", gate=str(gate))
        for attempt in (1, 2, 3):
            wait_until(lambda: len(effects(gateway, task_id)) == attempt)  # noqa: B023 - used up at once
            workers[effects(gateway, task_id)[-1].pid].kill()
        events = story(client, task_id)
    assert kinds(events) == ["accepted", "started", "retrying", "started", "retrying", "started", "failed"]
    assert events[-1]["error"]["code"] == "crashed"


def test_a_worker_that_starts_again_at_its_address_gets_what_was_submitted_meanwhile(elsewhere: Elsewhere) -> None:
    worker = elsewhere.worker()
    gateway = elsewhere.gateway(at(worker), workers=1)
    worker.kill()
    wait_until(lambda: "link-gone" in gateway.log())
    with WsClient(gateway.ws_url) as client:
        task_id = submit(client, "mark")
        assert client.receive()["event"] == "accepted"
        again = elsewhere.worker("--text", at(worker))
        assert story(client, task_id)[-1]["result"] == again.pid


def test_a_worker_that_is_silent_for_its_lease_is_given_up_and_its_late_report_refused(elsewhere: Elsewhere, gate: Path) -> None:
    worker = elsewhere.worker()
    gateway = elsewhere.gateway(at(worker), workers=1)
    with WsClient(gateway.ws_url) as client:
        ids = [submit(client, "gated", gate=str(gate)), submit(client, "gated_again", gate=str(gate))]
        begun(gateway, *ids)
        worker.send_signal(signal.SIGSTOP)
        events = story(client, ids[0])
        assert kinds(events) == ["accepted", "started", "interrupted"]
        assert "link-silent" in gateway.log()
        worker.send_signal(signal.SIGCONT)
        wait_until(lambda: len(effects(gateway, ids[1])) == 2)  # its second attempt, in the same worker, which is known as a new one
        open_gate(gate)
        assert kinds(story(client, ids[1])) == ["accepted", "started", "retrying", "started", "succeeded"]
        wait_until(lambda: gateway.log().count("report-refused") == 2, 10, gateway.log)  # of both first attempts
        client.send({"id": ids[0], "attach": 0})
        client.final(ids[0])
        assert client.messages[-3:] == events
    assert len(effects(gateway, ids[0])) == 1


def wait_for_all(client: WsClient, ids: list[str]) -> None:
    """Wait until all of these are over."""
    waiting = set(ids)
    while waiting:
        message = client.receive(20)
        if message.get("event") in ("succeeded", "failed", "cancelled", "interrupted"):
            waiting.discard(message["id"])
