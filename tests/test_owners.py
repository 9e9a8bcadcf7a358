"""Two owners whose tasks have the same id, and run at the same time on the same worker: through kills of the gateway, of the worker and of
everything, cancelled, tried again, attached to, listed and streamed, each of them sees its own alone, and a third sees neither."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import check_story, effects, open_gate, said_of
from tests.harness import Server, WsClient, wait_until
from tests.httpapi import EventStream, HttpClient
from tests.tokenfile import TokenFile, bearer

SAME = "order-17"
OWNERS = ("anna", "bert")
TOKENS = {name: f"{name}-{name[0] * 40}" for name in (*OWNERS, "carl")}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Starts servers in one data directory; whichever was started before is killed."""
    tokens = TokenFile(tmp_path / "tokens.toml")
    for name, token in TOKENS.items():
        tokens.add(token, name)
    started: list[Server] = []

    def start_it() -> Server:
        for server in started:
            server.kill()
        flags = ("--tasks", "tests.owner_tasks", "--workers", "1", "--process-slots", "2", "--tokens", str(tokens.path))
        started.append(Server(*flags, data_dir=tmp_path / "data"))
        return started[-1]

    yield start_it
    for server in started:
        server.clean()


def connect(server: Server, name: str) -> WsClient:
    """As soon as there is a gateway."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return WsClient(server.ws_url, header=bearer(TOKENS[name]))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def gate_of(directory: Path, name: str) -> Path:
    return directory / f"gate-of-{name}"


def args_of(directory: Path, name: str) -> list[str]:
    return [str(gate_of(directory, name)), name]


def attach(client: WsClient) -> None:
    client.send({"id": SAME, "attach": 0})


def ran(server: Server, name: str) -> int:
    return sum(effect.note == name for effect in effects(server, SAME))


def check_own(events: list[Any], name: str) -> None:
    """All that was said of a task is its owner's."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), events
    text = json.dumps(events)
    assert not [other for other in TOKENS if other != name and f'"{other}"' in text], text
    assert {event["value"] for event in events if event["event"] == "output"} == {name}


def check_ends(server: Server, name: str, state: str) -> None:
    """What this owner is told in every way in which one can ask."""
    with connect(server, name) as client, HttpClient(server) as http:
        attach(client)
        assert client.final(SAME, 20)["event"] == state
        events = said_of(client.messages, SAME)
        check_story(events)
        check_own(events, name)
        with EventStream(server, SAME, Authorization=f"Bearer {TOKENS[name]}") as stream:
            assert list(stream) == events
        view = http.ask("GET", f"/tasks/{SAME}", **bearer(TOKENS[name])).body
        assert (view["state"], view.get("result")) == (state, events[-1].get("result"))
        for listed in (client.ask({"list": {}})["list"], http.ask("GET", "/tasks", **bearer(TOKENS[name])).body["tasks"]):
            assert [(entry["id"], entry["state"], entry["seq"]) for entry in listed] == [(SAME, state, events[-1]["seq"])]


def check_stranger(server: Server) -> None:
    """Who has no task of this id finds none, whatever he asks, and can end none."""
    as_carl = bearer(TOKENS["carl"])
    with connect(server, "carl") as client, HttpClient(server) as http:
        for message in ({"id": SAME, "attach": 0}, {"id": SAME, "cancel": True}):
            assert client.ask(message)["error"]["code"] == "unknown_task", message
        assert client.ask({"list": {}}) == {"list": []}
        for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
            assert http.ask(method, f"/tasks/{SAME}{path}", **as_carl).code == "unknown_task"
        assert http.ask("GET", f"/tasks/{SAME}", Prefer="wait=5", **as_carl).code == "unknown_task"
        assert http.ask("GET", "/tasks", **as_carl).body == {"tasks": []}


def check_sent_again(server: Server, directory: Path, function: str) -> None:
    """Sent again, each finds its own; with the other's arguments it is another task, as it is with any other."""
    for name, other in (OWNERS, OWNERS[::-1]):
        before = ran(server, name)
        with connect(server, name) as client:
            client.send({"id": SAME, "function": function, "args": args_of(directory, name)})
            client.final(SAME)
            check_own(said_of(client.messages, SAME), name)
            refused = client.ask({"id": SAME, "function": function, "args": args_of(directory, other)})
            assert refused["error"]["code"] == "id_conflict"
        assert ran(server, name) == before


def check_all(server: Server, directory: Path, function: str) -> None:
    """What everyone is told when both are over."""
    check_ends(server, "anna", "succeeded")
    check_ends(server, "bert", "cancelled")
    check_stranger(server)
    check_sent_again(server, directory, function)


def begin(server: Server, directory: Path, function: str) -> None:
    """Both run at once, in one worker."""
    for name in OWNERS:
        with connect(server, name) as client:
            client.send({"id": SAME, "function": function, "args": args_of(directory, name)})
            client.until(lambda message: message.get("event") == "output")
    assert len(server.worker_pids()) == 1


def kill(server: Server, pid: int, pids: Callable[[], list[int]]) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: (now := pids()) and pid not in now, 20)


@pytest.mark.parametrize("function", ["whose", "whose_in_process"])
def test_two_owners_with_one_id_never_meet(start: Callable[[], Server], tmp_path: Path, function: str) -> None:
    server = start()
    begin(server, tmp_path, function)
    check_stranger(server)
    with EventStream(server, SAME, timeout=30, Authorization=f"Bearer {TOKENS['anna']}") as stream:
        events = iter(stream)
        check_own([next(events) for _ in range(4)], "anna")
    gateway, worker = server.gateway_pid(), server.worker_pids()[0]

    kill(server, gateway, lambda: [server.gateway_pid()])
    clients = {name: connect(server, name) for name in OWNERS}
    for client in clients.values():
        attach(client)
        client.until(lambda message: message.get("event") == "output")
    assert server.worker_pids() == [worker]
    assert (ran(server, "anna"), ran(server, "bert")) == (1, 1)

    kill(server, worker, server.worker_pids)
    for name, client in clients.items():
        client.until(lambda message: message.get("event") == "started" and message["attempt"] == 2, 20)
        client.until(lambda message: message.get("event") == "output")
        assert ran(server, name) == 2

    clients["bert"].send({"id": SAME, "cancel": True})
    assert clients["bert"].final(SAME)["event"] == "cancelled"
    assert clients["anna"].ask({"list": {}})["list"][0]["state"] == "running"
    open_gate(gate_of(tmp_path, "bert"))  # anna's waits for its own
    clients["anna"].send({"ping": 1})
    clients["anna"].until(lambda message: "pong" in message)
    assert not [event for event in said_of(clients["anna"].messages, SAME) if event["event"] in ("cancelled", "succeeded")]
    open_gate(gate_of(tmp_path, "anna"))
    assert clients["anna"].final(SAME)["result"] == "anna"
    for name, client in clients.items():
        check_own(said_of(client.messages, SAME), name)
        client.close()

    check_all(server, tmp_path, function)
    again = start()
    check_all(again, tmp_path, function)
    assert (ran(again, "anna"), ran(again, "bert")) == (2, 2)
