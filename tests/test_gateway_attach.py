"""Who watches a task: attach from any number, again and again, together with others; and tasks that end with their connection."""

from pathlib import Path
from typing import Any

from tests.effects import check_story, open_gate
from tests.harness import FINAL, Server, WsClient
from tests.wstasks import started, story, submit

FLAGS = ("--tasks", "tests.sample_tasks")


def test_attach_shows_everything_after_a_number_again(server: Server, client: WsClient) -> None:
    task_id = submit(client, "countdown", {"start": 5, "interval": 0})
    whole = story(client, task_id)
    with WsClient(server.ws_url) as other:
        for after in range(len(whole)):
            other.send({"id": task_id, "attach": after})
            other.final(task_id)
            events, other.messages = other.messages, []
            assert events == whole[after:]
        other.send({"id": task_id, "attach": len(whole)})
        assert other.ask({"ping": 0}) == {"pong": 0}


def test_who_attaches_while_events_flow_gets_each_once_and_in_order(server: Server, client: WsClient) -> None:
    task_id = submit(client, "flow", {"count": 300, "pause": 0.001})
    watchers = []
    for number in range(15):
        watchers.append(WsClient(server.ws_url))
        client.until(lambda message: message.get("seq", 0) >= len(watchers) * 20 - 20)
        watchers[-1].send({"id": task_id, "attach": number})
    whole = story(client, task_id)
    check_story(whole)
    for number, watcher in enumerate(watchers):
        assert story(watcher, task_id) == whole[number:]
        watcher.close()


def test_a_client_that_comes_back_again_and_again_misses_nothing(server: Server, client: WsClient) -> None:
    task_id = submit(client, "flow", {"count": 200, "pause": 0.002})
    assert client.receive()["event"] == "accepted"
    seen: list[Any] = []
    while not seen or seen[-1]["event"] not in FINAL:
        with WsClient(server.ws_url) as again:
            again.send({"id": task_id, "attach": len(seen)})
            seen += [again.receive() for _ in range(min(25, 203 - len(seen)))]
    check_story(seen)
    assert story(client, task_id) == seen


def test_who_has_seen_more_than_there_is_of_a_running_task_is_told_its_end(server: Server, client: WsClient, gate: Path) -> None:
    task_id = submit(client, "gated", {"gate": str(gate)})
    started(client, task_id)
    with WsClient(server.ws_url) as other:
        other.send({"id": task_id, "attach": 1000})
        assert other.ask({"ping": 0}) == {"pong": 0}
        open_gate(gate)
        assert other.receive()["event"] == "succeeded"


def test_two_clients_watch_one_task(server: Server, client: WsClient, gate: Path) -> None:
    task_id = submit(client, "gated", {"gate": str(gate)})
    with WsClient(server.ws_url) as other:
        other.send({"id": task_id, "attach": 0})
        started(other, task_id)
        other.send({"id": task_id, "cancel": True})
        assert story(other, task_id) == story(client, task_id)
        assert other.messages[-1]["event"] == "cancelled"


def test_on_disconnect_cancel_ends_a_task_with_its_connection_and_detach_does_not(server: Server, client: WsClient, gate: Path) -> None:
    ids = {}
    with WsClient(server.ws_url) as leaving:
        for choice in ("cancel", "detach"):
            ids[choice] = submit(leaving, "gated", {"gate": str(gate)}, on_disconnect=choice)
            started(leaving, ids[choice])
    client.send({"id": ids["cancel"], "attach": 0})
    assert client.final(ids["cancel"])["event"] == "cancelled"
    open_gate(gate)
    client.send({"id": ids["detach"], "attach": 0})
    assert client.final(ids["detach"])["event"] == "succeeded"


def test_a_task_that_ends_with_its_connection_does_so_too_after_an_attach_on_it(server: Server, client: WsClient, gate: Path) -> None:
    with WsClient(server.ws_url) as leaving:
        task_id = submit(leaving, "gated", {"gate": str(gate)}, on_disconnect="cancel")
        leaving.send({"id": task_id, "attach": 0})
        started(leaving, task_id)
    client.send({"id": task_id, "attach": 0})
    assert client.final(task_id)["event"] == "cancelled"
