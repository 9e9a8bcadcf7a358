"""What becomes of tasks whose gateway, or everything, was killed and started again."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import check_story, effects, open_gate, runs, said_of
from tests.harness import Server, WsClient, wait_until

TASKS = ("--tasks", "tests.sample_tasks")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers in one data directory; whichever was started before is killed."""
    started: list[Server] = []

    def start_it(*flags: str) -> Server:
        for server in started:
            server.kill()
        started.append(Server(*TASKS, *flags, data_dir=tmp_path / "data"))
        return started[-1]

    yield start_it
    for server in started:
        server.clean()


def new_id() -> str:
    return uuid.uuid4().hex


def submit(client: WsClient, function: str, args: Any = None, **options: Any) -> str:
    """Submit a task, and wait until it is accepted."""
    task_id = new_id()
    client.send({"id": task_id, "function": function, "args": {} if args is None else args, **options})
    client.until(lambda message: message.get("id") == task_id and message["event"] == "accepted")
    return task_id


def story(server: Server, task_id: str, timeout: float = 20.0) -> list[Any]:
    """All that is said of a task, from the first to the last, told to somebody new."""
    with WsClient(server.ws_url) as client:
        client.send({"id": task_id, "attach": 0})
        client.final(task_id, timeout)
        events = said_of(client.messages, task_id)
    check_story(events)
    return events


def started(client: WsClient, task_id: str) -> None:
    """Wait until it has begun."""
    while "started" not in [event["event"] for event in said_of(client.messages, task_id)]:
        client.receive()


def kill_gateway(server: Server) -> None:
    """The master starts another at once."""
    pid = server.gateway_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.gateway_pid() != pid)


# Everything is killed.


def test_what_waited_runs_after_the_next_start(start: Callable[..., Server], gate: Path) -> None:
    server = start("--workers", "1", "--concurrency", "1")
    with WsClient(server.ws_url) as client:
        holding = submit(client, "gated", [str(gate)])
        started(client, holding)
        waiting = [submit(client, "mark", [f"note {number}"], priority=number) for number in range(3)]
    server = start("--workers", "1", "--concurrency", "1")
    for task_id in waiting:
        assert [event["event"] for event in story(server, task_id)] == ["accepted", "started", "succeeded"]
    order = [effect.id for effect in effects(server) if effect.id in waiting]
    assert order == waiting[::-1], "their priorities still hold"
    assert story(server, holding)[-1]["event"] == "interrupted"
    assert runs(server)[holding] == 1


def test_what_ran_is_interrupted_or_tried_again_as_it_was_declared(start: Callable[..., Server], gate: Path) -> None:
    server = start()
    with WsClient(server.ws_url) as client:
        once, again = submit(client, "gated", [str(gate)]), submit(client, "gated_again", [str(gate)])
        for task_id in (once, again):
            started(client, task_id)
    server = start()
    interrupted = story(server, once)[-1]
    assert interrupted["event"] == "interrupted"
    assert "may or may not have taken effect" in interrupted["error"]["message"]
    open_gate(gate)
    events = story(server, again)
    assert [event["event"] for event in events] == ["accepted", "started", "retrying", "started", "succeeded"]
    assert events[-1]["result"] == 2
    assert (runs(server)[once], runs(server)[again]) == (1, 2)


def test_a_result_is_had_and_an_id_known_after_a_restart(start: Callable[..., Server]) -> None:
    server = start()
    with WsClient(server.ws_url) as client:
        task_id = submit(client, "say_in_greenlet", ["ملاحظة"])
        client.final(task_id)
        before = said_of(client.messages, task_id)
    server = start()
    assert story(server, task_id) == before
    with WsClient(server.ws_url) as client:
        client.send({"id": task_id, "function": "say_in_greenlet", "args": ["ملاحظة"]})
        client.final(task_id)
        assert said_of(client.messages, task_id) == before
        conflict = client.ask({"id": task_id, "function": "say_in_greenlet", "args": ["other"]})
        assert conflict["error"]["code"] == "id_conflict"
        listed = client.ask({"list": {"limit": 1}})["list"]
        assert [(entry["id"], entry["state"], entry["seq"]) for entry in listed] == [(task_id, "succeeded", before[-1]["seq"])]
    assert runs(server)[task_id] == 1


def test_a_delay_goes_on_while_nobody_runs(start: Callable[..., Server]) -> None:
    server = start()
    with WsClient(server.ws_url) as client:
        began = time.monotonic()
        soon, late = submit(client, "mark", ["soon"], delay=3), submit(client, "mark", ["late"], delay=3600)
    server = start()
    assert story(server, soon)[-1]["event"] == "succeeded"
    assert time.monotonic() - began >= 3
    with WsClient(server.ws_url) as client:
        assert {entry["id"]: entry["state"] for entry in client.ask({"list": {}})["list"]} == {soon: "succeeded", late: "queued"}
        client.send({"id": late, "cancel": True})
    assert story(server, late)[-1]["event"] == "cancelled"


def test_a_retry_that_waits_is_tried_after_the_next_start(start: Callable[..., Server]) -> None:
    server = start()
    with WsClient(server.ws_url) as client:
        task_id = submit(client, "second_time", {"after": 2})
        client.until(lambda message: message.get("event") == "retrying")
    server = start()
    events = story(server, task_id)
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "accepted",
        "started",
        "retrying",
        "started",
        "succeeded",
    ]
    assert runs(server)[task_id] == 2


def test_what_was_to_end_with_its_client_ends(start: Callable[..., Server], gate: Path) -> None:
    server = start("--workers", "1", "--concurrency", "1")
    with WsClient(server.ws_url) as client:
        holding = submit(client, "gated", [str(gate)])
        started(client, holding)
        task_id = submit(client, "mark", on_disconnect="cancel")
        server.kill()
    server = start("--workers", "1", "--concurrency", "1")
    assert story(server, task_id)[-1]["event"] == "cancelled"
    assert runs(server)[task_id] == 0


def test_tasks_wait_for_a_function_that_nobody_offers_now(start: Callable[..., Server], gate: Path, tmp_path: Path) -> None:
    server = start("--workers", "1", "--concurrency", "1")
    with WsClient(server.ws_url) as client:
        started(client, submit(client, "gated", [str(gate)]))
        waiting = submit(client, "mark")
        server.kill()
    without = Server("--workers", "1", data_dir=tmp_path / "data")
    with WsClient(without.ws_url) as client:
        assert client.ask({"list": {"limit": 1}})["list"][0]["state"] == "queued"
        client.send({"id": "other", "function": "echo", "args": {}})
        assert client.final("other")["event"] == "succeeded", "others do not wait for it"
    without.kill()
    without.clean()
    assert story(start(), waiting)[-1]["event"] == "succeeded"


@pytest.mark.parametrize("durability", ["normal", "off"])
def test_less_durability_is_what_it_says(start: Callable[..., Server], durability: str) -> None:
    server = start("--durability", durability)
    with WsClient(server.ws_url) as client:
        task_id = submit(client, "mark")
        client.final(task_id)
    server = start("--durability", durability)
    with WsClient(server.ws_url) as client:
        answer = client.ask({"id": task_id, "attach": 0})
    assert answer.get("event", answer.get("error", {}).get("code")) == {"normal": "accepted", "off": "unknown_task"}[durability]


# The gateway alone is killed.


def test_what_runs_goes_on_without_its_gateway_and_is_reported_by_the_next(start: Callable[..., Server], gate: Path) -> None:
    server = start()
    with WsClient(server.ws_url) as client:
        held = [submit(client, "gated", [str(gate)]) for _ in range(5)]
        flowing = submit(client, "flow", {"count": 40, "pause": 0.05})
        for task_id in (*held, flowing):
            started(client, task_id)
        kill_gateway(server)
    wait_until(lambda: server.log().count("recovered: 6 tasks"))
    open_gate(gate)
    for task_id in held:
        assert [event["event"] for event in story(server, task_id)] == ["accepted", "started", "succeeded"]
    events = story(server, flowing)
    assert [event["value"] for event in events if event["event"] == "output"] == [f"{number}:" for number in range(40)]
    assert set(runs(server).values()) == {1}


def test_a_gateway_that_is_killed_again_and_again_keeps_its_word(start: Callable[..., Server], gate: Path) -> None:
    """More tasks run than fit into one line of what it claims."""
    server = start("--max-line", "4KiB")
    with WsClient(server.ws_url) as client:
        held = [submit(client, "gated", [str(gate)]) for _ in range(150)]
        for task_id in held:
            started(client, task_id)
    for _ in range(3):
        kill_gateway(server)
        wait_until(lambda: server.log().count("recovered: 150 tasks"))
    open_gate(gate)
    for task_id in held:
        assert [event["event"] for event in story(server, task_id)] == ["accepted", "started", "succeeded"]
    assert set(runs(server).values()) == {1}


def test_a_cancel_reaches_what_an_earlier_gateway_sent(start: Callable[..., Server], gate: Path) -> None:
    server = start()
    with WsClient(server.ws_url) as client:
        task_id = submit(client, "gated", [str(gate)])
        started(client, task_id)
    kill_gateway(server)
    with WsClient(wait_for_gateway(server)) as client:
        client.send({"id": task_id, "cancel": True})
        client.send({"id": task_id, "attach": 2})
        assert client.final(task_id)["event"] == "cancelled"


def test_slots_of_what_runs_are_taken_still(start: Callable[..., Server], gate: Path) -> None:
    """A limit of three at once holds over the gateways."""
    server = start("--workers", "1")
    with WsClient(server.ws_url) as client:
        held = [submit(client, "limited", [str(gate)]) for _ in range(5)]
        for task_id in held[:3]:
            started(client, task_id)
    kill_gateway(server)
    with WsClient(wait_for_gateway(server)) as client:
        client.send({"id": "late", "function": "limited", "args": [str(gate)]})
        client.send({"id": "other", "function": "mark"})
        assert client.final("other")["event"] == "succeeded"
        assert len(runs(server)) == 4, "three of them, and the other"
        open_gate(gate)
        assert client.final("late")["event"] == "succeeded"
    for task_id in held:
        assert story(server, task_id)[-1]["event"] == "succeeded"


def wait_for_gateway(server: Server) -> str:
    """Its address, once it has met the workers again and lets somebody in."""

    def is_there() -> bool:
        with WsClient(server.ws_url) as client:
            return "pong" in client.ask({"ping": 1})

    wait_until(is_there)
    return server.ws_url
