"""Who gets to run, and where: turns between clients, what one function may take, and what blocks a worker. Judged by order, not by time."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import Effect, check_story, effects, open_gate, runs, said_of
from tests.harness import Server, WsClient, wait_until


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "gate"
    yield path
    open_gate(path)


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """Two workers of ten slots: of the twenty, one function may have eighteen."""
    server = start_server("--tasks", "tests.sample_tasks", "--workers", "2", "--concurrency", "10", "--process-slots", "1")
    wait_until(lambda: server.log().count("link-up") == 2)  # one is enough to be ready
    return server


@pytest.fixture
def single(start_server: Callable[..., Server]) -> Server:
    """One worker, for the order in which tasks begin; of its ten slots one function may have nine."""
    return start_server("--tasks", "tests.sample_tasks", "--workers", "1", "--concurrency", "10")


def submit(client: WsClient, function: str, args: dict[str, Any], **options: Any) -> str:
    task_id = uuid.uuid4().hex
    client.send({"id": task_id, "function": function, "args": args, "events": "final", **options})
    return task_id


def is_answered(client: WsClient) -> None:
    """All that was sent before has been taken."""
    client.send({"ping": "taken"})
    client.until(lambda message: message.get("pong") == "taken")


def finals(client: WsClient, count: int) -> None:
    """Wait until so many tasks of this client have ended well."""
    while len(done := [message for message in client.messages if "event" in message]) < count:
        client.receive(30)
    assert {message["event"] for message in done} == {"succeeded"}


def stay(server: Server, count: int) -> list[Effect]:
    """The tasks that began, once they are `count`, and stay so while others could begin."""
    wait_until(lambda: len(effects(server)) >= count)
    with WsClient(server.ws_url) as other:
        for _ in range(20):
            submit(other, "echo", {})
        finals(other, 20)
    begun = effects(server)
    assert len(begun) == count
    return begun


def test_one_who_submits_thousands_delays_another_by_about_one_task(single: Server, gate: Path) -> None:
    with WsClient(single.ws_url) as many, WsClient(single.ws_url) as other:
        for _ in range(1900):
            submit(many, "gated", {"gate": str(gate)})
        is_answered(many)
        mine = submit(other, "gated", {"gate": str(gate)})
        is_answered(other)
        stay(single, 9)
        open_gate(gate)
        finals(other, 1)
        finals(many, 1900)
    order = [effect.id for effect in effects(single)]
    assert order.index(mine) in (9, 10)
    assert set(runs(single).values()) == {1}


def test_twenty_who_submit_hundreds_take_turns(single: Server, gate: Path) -> None:
    """However they came, each has had its share after each round."""
    clients = [WsClient(single.ws_url) for _ in range(20)]
    for number, client in enumerate(clients):
        for _ in range(20 + 10 * number):
            submit(client, "gated", {"gate": str(gate), "note": str(number)})
        is_answered(client)
    stay(single, 9)
    open_gate(gate)
    for number, client in enumerate(clients):
        finals(client, 20 + 10 * number)
        client.close()
    notes = [int(effect.note) for effect in effects(single)]
    for rounds in (1, 4, 10):
        turns = notes[9 : 9 + 20 * rounds]
        assert {abs(turns.count(number) - rounds) for number in range(20)} <= {0, 1}


def test_a_thousand_mails_leave_room_for_a_trivial_task(server: Server, gate: Path) -> None:
    """While none of them ends: from the same client and from another."""
    with WsClient(server.ws_url) as client, WsClient(server.ws_url) as other:
        for _ in range(1000):
            submit(client, "gated", {"gate": str(gate)})
        is_answered(client)
        stay(server, 18)
        for each in (client, other):
            submit(each, "echo", {"n": 1})
            assert each.receive()["result"] == {"n": 1}
        assert len(effects(server)) == 18
        open_gate(gate)
        finals(client, 1001)


def test_mails_of_50_ms_saturate_their_share_and_a_trivial_task_overtakes_them(server: Server) -> None:
    with WsClient(server.ws_url) as client:
        mails = [submit(client, "mark", {"seconds": 0.05}) for _ in range(200)]
        is_answered(client)
        trivial = [submit(client, "echo", {}) for _ in range(5)]
        finals(client, 205)
        ends = [message["id"] for message in client.messages if "event" in message]
    assert max(ends.index(task_id) for task_id in trivial) < 150
    assert len(mails) == 200


def test_max_running_is_counted_over_both_workers(server: Server, gate: Path) -> None:
    with WsClient(server.ws_url) as client:
        for _ in range(10):
            submit(client, "limited", {"gate": str(gate)})
        begun = stay(server, 3)
        assert len({effect.pid for effect in begun}) == 2
        open_gate(gate)
        finals(client, 10)
    assert set(runs(server).values()) == {1}


def test_work_for_processes_is_spread_and_never_queues_behind_itself(server: Server, gate: Path) -> None:
    with WsClient(server.ws_url) as client:
        for _ in range(6):
            submit(client, "isolated", {"gate": str(gate)})
        begun = stay(server, 2)
        assert {int(effect.note) for effect in begun} == set(server.worker_pids())
        open_gate(gate)
        finals(client, 6)
    assert set(runs(server).values()) == {1}


def test_a_worker_that_is_held_up_loses_what_it_has_not_begun(server: Server) -> None:
    """Half of the tasks are on their way to it when it is held up; once it turns again, half of those go to the other."""
    with WsClient(server.ws_url) as client, WsClient(server.ws_url) as other:
        client.send({"id": "spin", "function": "spin", "args": {"seconds": 1.2}})
        client.until(lambda message: message.get("event") == "started")
        first = [submit(other, "mark", {"note": "first"}) for _ in range(18)]
        wait_until(lambda: "link-silent" in server.log())
        later = [submit(other, "mark", {"note": "later"}) for _ in range(18)]
        finals(other, 36)
        held = client.final("spin")["result"]
        check_story(said_of(client.messages, "spin"))
    where = {effect.id: effect.pid for effect in effects(server)}
    assert set(runs(server).values()) == {1}
    assert all(effect.attempt == 1 for effect in effects(server))
    assert all(where[task_id] != held for task_id in later)
    assert 9 < len([task_id for task_id in first if where[task_id] != held]) <= 18
    assert held in server.worker_pids()
    assert os.path.exists(f"/proc/{held}")
