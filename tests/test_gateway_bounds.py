"""What the gateway bounds, and for whom: unfinished tasks, the queue, readers that are slow, a gateway that is leaving."""

import os
import signal
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.effects import check_story, effects, open_gate, said_of
from tests.harness import Server, WsClient, wait_until
from tests.rawclient import RawClient, text_frame

MIB = 1024 * 1024


BOUNDS = ("--max-unfinished", "50", "--max-queue", "60", "--max-unsent", "128KiB", "--concurrency", "10", "--stall-timeout", "60")
FLAGS = ("--tasks", "tests.sample_tasks", "--workers", "1", *BOUNDS)


def memory(pid: int) -> int:
    """Bytes of a process that are resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def port_of(server: Server) -> int:
    return int(server.http_url.rstrip("/").rsplit(":", 1)[1])


def gated(gate: Path, **options: Any) -> dict[str, Any]:
    return {"id": uuid.uuid4().hex, "function": "gated", "args": {"gate": str(gate)}, **options}


def finals(client: WsClient, ids: list[str]) -> None:
    """Wait until each of these has its final event."""
    ended: set[str] = set()
    while not ended >= set(ids):
        message = client.receive()
        if "result" in message or ("error" in message and "event" in message):
            ended.add(message["id"])


# Bounds of what may be asked.


def test_what_a_client_may_have_unfinished_is_bounded(server: Server, client: WsClient, gate: Path) -> None:
    tasks = [gated(gate, events="final") for _ in range(50)]
    for task in tasks:
        client.send(task)
    refused = client.ask({"id": "one-more", "function": "echo"})
    assert (refused["id"], refused["error"]["code"]) == ("one-more", "busy")
    assert refused["error"]["retry_after"] > 0
    client.send(tasks[0])  # no new one: it attaches
    with WsClient(server.ws_url) as other:
        assert other.ask({"function": "echo"})["event"] == "accepted"
    open_gate(gate)
    finals(client, [task["id"] for task in tasks])
    assert [message["id"] for message in client.messages if "error" in message] == ["one-more"]
    assert client.ask({"id": "now", "function": "echo"})["event"] == "accepted"


@pytest.mark.parametrize("options", [{}, {"delay": 60}])
def test_the_queue_is_bounded_for_all_together(server: Server, client: WsClient, gate: Path, options: dict[str, Any]) -> None:
    """Ten slots, nine for one function; what waits for its time waits in the queue too."""
    running = [gated(gate, events="final") for _ in range(9)]
    waiting = [gated(gate, events="final", **options) for _ in range(60)]
    with WsClient(server.ws_url) as other:
        for task in running:
            client.send(task)
        assert client.ask({"ping": 0}) == {"pong": 0}
        for number, task in enumerate(waiting):
            (client if number % 2 else other).send(task)
        assert (client.ask({"ping": 1}), other.ask({"ping": 1})) == ({"pong": 1}, {"pong": 1})
        refused = client.ask(gated(gate))
        assert refused["error"]["code"] == "busy"
        assert refused["error"]["retry_after"] > 0
        other.send(waiting[0])  # known already, so it takes no room
        for task in waiting:
            client.send({"id": task["id"], "cancel": True})
        finals(other, [task["id"] for task in waiting[::2]])
        assert other.ask(gated(gate))["event"] == "accepted"
        open_gate(gate)
        finals(client, [task["id"] for task in running])
        assert not [message for message in other.messages if "event" not in message and "error" in message]
    assert not [task for task in waiting if effects(server, task["id"])]


def test_priority_orders_ones_own_and_no_others(server: Server, client: WsClient, gate: Path) -> None:
    blockers = [gated(gate, events="final") for _ in range(9)]
    for task in blockers:
        client.send(task)
    names = []
    with WsClient(server.ws_url) as other:
        for number, priority in enumerate((0, -5, 7, 0, 1000, -1000)):
            names.append(f"{priority}-{number}")
            client.send(gated(gate, priority=priority) | {"args": {"gate": str(gate), "note": names[-1]}})
        client.until(lambda message: message.get("position") == 5)
        other.send(gated(gate) | {"args": {"gate": str(gate), "note": "other"}})
        assert other.receive()["position"] == 6
        open_gate(gate)
        wait_until(lambda: len([effect for effect in effects(server) if effect.note in names]) == 6)
    order = [effect.note for effect in effects(server) if effect.note in (*names, "other")]
    assert [note for note in order if note != "other"] == ["1000-4", "7-2", "0-0", "0-3", "-5-1", "-1000-5"]
    assert order.index("other") <= 1


# Bounds of what is said.


def test_a_client_that_asks_for_much_at_once_and_reads_gets_every_answer(client: WsClient) -> None:
    for number in range(1500):
        client.send({"describe": True} if number % 3 else {"ping": number})
    answers = [client.receive() for _ in range(1500)]
    assert [answer["pong"] for answer in answers if "pong" in answer] == list(range(0, 1500, 3))


def test_what_is_read_again_follows_the_reader(server: Server, client: WsClient) -> None:
    client.send({"id": "large-values", "function": "flow", "args": {"count": 120, "width": 60_000}})
    client.final("large-values", 30)
    check_story(said_of(client.messages, "large-values"))
    with RawClient(port_of(server), receive_buffer=16384, timeout=30) as again:
        again.send(text_frame('{"id":"large-values","attach":0}'))
        read_in_order(again, 123)


def test_readers_that_are_slow_miss_nothing_and_cost_no_memory(server: Server, client: WsClient) -> None:
    """What they have not read stands in the journal once; each may have little more than `--max-unsent` waiting for it."""
    client.send({"id": "much", "function": "flow", "args": {"count": 2000, "width": 1500, "pause": 0.0005}})
    assert client.receive()["event"] == "accepted"
    before = memory(server.gateway_pid())
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(RawClient(port_of(server), receive_buffer=16384, timeout=30)) for _ in range(15)]
        for reader in slow:
            reader.send(text_frame('{"id":"much","attach":0}'))
        client.final("much", 30)
        assert len(said_of(client.messages, "much")) == 2003
        assert memory(server.gateway_pid()) - before < 20 * MIB  # 3 MiB each would be 45
        for reader in slow:
            read_in_order(reader, 2003)


def read_in_order(reader: RawClient, count: int) -> None:
    """Read a story of one task to its end, without keeping it."""
    message: str | bytes | None = ""
    for number in range(1, count + 1):
        message = reader.message()
        assert isinstance(message, str), f"ended before {number}: {reader.closed}"
        assert f'"seq":{number},' in message
    assert isinstance(message, str)
    assert '"event":"succeeded"' in message


# Leaving.


def test_a_gateway_that_leaves_takes_nothing_new_and_lets_the_rest_end(start_server: Callable[..., Server], gate: Path) -> None:
    server = start_server("--tasks", "tests.sample_tasks", "--workers", "1")
    with WsClient(server.ws_url) as client:
        task = gated(gate)
        client.send(task)
        client.until(lambda message: message.get("event") == "started")
        os.kill(server.gateway_pid(), signal.SIGTERM)
        refused = wait_until(lambda: _refusal(client))
        assert refused["error"]["code"] == "busy"
        assert refused["error"]["retry_after"] > 0
        client.send(task)
        threading.Timer(0.2, open_gate, [gate]).start()
        assert client.final(task["id"])["event"] == "succeeded"
        assert len(effects(server, task["id"])) == 1


def _refusal(client: WsClient) -> Any:
    """The answer to a submit, where that is a refusal; the signal may come a moment after it."""
    answer = client.ask({"id": uuid.uuid4().hex, "function": "echo", "events": "final"})
    return answer if "event" not in answer else None
