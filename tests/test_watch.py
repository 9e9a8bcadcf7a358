"""Watching over a WebSocket: figures, workers and what changes of one's own tasks, pushed until the end; and how `list` searches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import open_gate
from tests.harness import Server, WsClient, wait_until

FLAGS = ("--tasks", "tests.sample_tasks")


@pytest.fixture
def watcher(server: Server) -> Iterator[WsClient]:
    with WsClient(server.ws_url) as connected:
        connected.send({"watch": True})
        yield connected


def told(watcher: WsClient, task_id: str, state: str) -> Any:
    """The entry of this task, once it stands so."""
    while True:
        for message in watcher.messages:
            for entry in (message.get("watch") or {}).get("tasks", ()):
                if entry["id"] == task_id and entry["state"] == state:
                    return entry
        watcher.receive()


def test_figures_and_workers_come_at_once(watcher: WsClient) -> None:
    shown = watcher.receive()["watch"]
    assert shown["figures"].keys() == {"accepted", "finished", "queued", "unfinished"}
    workers = shown["workers"]
    while len(workers) < 2:  # the server is ready once one of them was met
        workers = watcher.receive()["watch"].get("workers", ())
    assert all(worker["slots"] == 100 for worker in workers)


def test_a_task_is_shown_as_it_changes_and_a_worker_says_what_it_runs(watcher: WsClient, client: WsClient, gate: Path) -> None:
    client.send({"id": "held", "function": "gated", "args": [str(gate)]})
    told(watcher, "held", "running")
    running = watcher.until(lambda message: any(worker["runs"] for worker in (message.get("watch") or {}).get("workers", ())))
    assert {"gated": 1} in [worker["runs"] for worker in running["watch"]["workers"]]
    open_gate(gate)
    assert told(watcher, "held", "succeeded")["function"] == "gated"


def test_nothing_is_pushed_after_the_end_that_was_asked_for(watcher: WsClient, client: WsClient) -> None:
    watcher.receive()
    watcher.send({"watch": False})
    assert watcher.until(lambda message: message.get("watch", 0) is None)
    client.send({"id": "unseen", "function": "echo", "events": "final"})
    client.final("unseen")
    assert watcher.ask({"ping": 1}) == {"pong": 1}


def test_a_list_is_searched_and_goes_on_where_it_ended(client: WsClient) -> None:
    for number in range(5):
        client.send({"id": f"find-{number}", "function": "fail" if number % 2 else "mark", "events": "final"})
        client.final(f"find-{number}")

    def found(**wanted: Any) -> list[str]:
        return [entry["id"] for entry in client.ask({"list": {"id": "find-", **wanted}})["list"]]

    wait_until(lambda: len(found()) == 5)
    assert found(state="failed") == ["find-3", "find-1"]
    assert found(function="mark") == ["find-4", "find-2", "find-0"]
    first = client.ask({"list": {"id": "find-", "limit": 2}})
    assert [entry["id"] for entry in first["list"]] == ["find-4", "find-3"]
    assert found(limit=2, before=first["before"]) == ["find-2", "find-1"]
