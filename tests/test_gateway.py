"""The full form over a WebSocket, end to end: what is answered to a submit, a cancel, a list, a describe, a ping."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.effects import check_story, effects, open_gate, said_of
from tests.harness import Server, WsClient
from tests.rawclient import RawClient, text_frame
from tests.wstasks import fresh, started, story, submit

FLAGS = ("--tasks", "tests.sample_tasks")


# Events.


def test_a_task_is_accepted_started_and_reported_once(client: WsClient) -> None:
    task_id = submit(client, "echo", {"text": "hi"})
    events = story(client, task_id)
    check_story(events)
    assert [event["event"] for event in events] == ["accepted", "started", "succeeded"]
    assert events[0] == {"id": task_id, "event": "accepted", "seq": 1, "position": 0}
    assert events[1]["attempt"] == 1
    assert events[1]["worker"] in ("worker-1", "worker-2")
    assert events[2]["result"] == {"text": "hi"}


def test_the_values_of_a_generator_are_shown_as_output(client: WsClient) -> None:
    events = story(client, submit(client, "countdown", {"start": 3, "interval": 0.01}))
    check_story(events)
    assert [event["value"] for event in events if event["event"] == "output"] == [3, 2, 1, 0]


def test_progress_is_shown_with_its_total(client: WsClient) -> None:
    addresses = [f"u{number}@example.org" for number in range(20)]
    events = story(client, submit(client, "send_mails", {"from": "a@example.org", "to": addresses, "subject": "s", "contents": "c"}))
    check_story(events)
    steps = [(event["done"], event["total"]) for event in events if event["event"] == "progress"]
    assert steps[0] == (1, 20)
    assert steps[-1] == (20, 20)
    assert events[-1]["result"] == {"sent": 20, "not_sent": 0, "failed": []}


def test_retrying_is_shown_and_the_next_attempt_numbers_on(client: WsClient) -> None:
    events = story(client, submit(client, "second_time"))
    check_story(events)
    assert [(event["event"], event.get("attempt")) for event in events] == [
        ("accepted", None),
        ("started", 1),
        ("progress", 1),
        ("retrying", 1),
        ("started", 2),
        ("progress", 2),
        ("succeeded", 2),
    ]


@pytest.mark.parametrize(
    ("function", "args", "event", "code"),
    [
        ("fail", {"message": "no"}, "failed", "failed"),
        ("echo", [1], "failed", "bad_arguments"),
        ("sleep", {"seconds": "long"}, "failed", "bad_arguments"),
    ],
)
def test_what_does_not_succeed_ends_with_an_error(client: WsClient, function: str, args: Any, event: str, code: str) -> None:
    events = story(client, submit(client, function, args))
    check_story(events)
    assert events[-1]["event"] == event
    assert events[-1]["error"]["code"] == code
    assert events[-1]["error"]["message"]


def test_with_events_final_only_the_end_is_said(client: WsClient) -> None:
    done = submit(client, "countdown", {"start": 2, "interval": 0.01}, events="final")
    failed = submit(client, "fail", events="final")
    assert [event["event"] for event in story(client, done)] == ["succeeded"]
    if not said_of(client.messages, failed):
        client.final(failed)
    assert [event["event"] for event in said_of(client.messages, failed)] == ["failed"]


# Ids.


def test_a_task_without_an_id_gets_one(client: WsClient) -> None:
    accepted = client.ask({"function": "echo"})
    assert accepted["event"] == "accepted"
    assert 1 <= len(accepted["id"]) <= 64
    assert client.final(accepted["id"])["result"] == {}


def test_the_same_id_again_attaches_and_never_runs_twice(server: Server, client: WsClient, gate: Path) -> None:
    args = {"gate": str(gate), "note": "once"}
    task_id = submit(client, "gated", args)
    started(client, task_id)
    with WsClient(server.ws_url) as other:
        submit(other, "gated", {"note": "once", "gate": str(gate)}, id=task_id)  # the order of keys is no other content
        submit(other, "gated", args, id=task_id)
        started(other, task_id)
        open_gate(gate)
        check_story(story(client, task_id))
        other.final(task_id)
    with WsClient(server.ws_url) as late:
        submit(late, "gated", args, id=task_id)
        events = story(late, task_id)
    check_story(events)
    assert events == said_of(client.messages, task_id)
    assert len(effects(server, task_id)) == 1


@pytest.mark.parametrize("args", [{"a": 1}, {"a": 1, "b": [True]}, [], None])
@pytest.mark.parametrize("when", ["while it runs", "when it is over"])
def test_the_same_content_is_no_conflict(server: Server, client: WsClient, args: Any, when: str) -> None:
    task_id = submit(client, "echo", args)
    if when == "when it is over":
        client.final(task_id)
    for events in ("all", "final"):
        with WsClient(server.ws_url) as other:
            submit(other, "echo", args, id=task_id, events=events)
            assert other.final(task_id)["event"] == "succeeded"


@pytest.mark.parametrize(
    ("function", "args"), [("echo", {"a": True}), ("echo", {"a": 1.0}), ("echo", {"a": 1, "b": None}), ("fail", {"a": 1}), ("echo", [1])]
)
def test_other_content_under_the_same_id_is_a_conflict(server: Server, client: WsClient, gate: Path, function: str, args: Any) -> None:
    running = submit(client, "gated", {"gate": str(gate)})
    over = submit(client, "echo", {"a": 1})
    client.final(over)
    for task_id in (running, over):
        with WsClient(server.ws_url) as other:
            answer = other.ask({"id": task_id, "function": function, "args": args})
            assert (answer["id"], answer["error"]["code"]) == (task_id, "id_conflict")
            assert "event" not in answer
    open_gate(gate)
    assert client.final(running)["event"] == "succeeded"


def test_one_id_twice_in_one_breath_is_one_task(server: Server, client: WsClient) -> None:
    tasks: list[dict[str, Any]] = [{"id": fresh(), "function": "mark", "args": {"note": "breath"}} for _ in range(2)]
    first, second = tasks
    other = {**second, "args": {"note": "other"}}
    with RawClient(int(server.http_url.rstrip("/").rsplit(":", 1)[1])) as raw:
        raw.send(*(text_frame(json.dumps(message)) for message in (first, first, second, other)))
        while (answer := json.loads(raw.message() or "")).get("error") is None:
            pass
        assert (answer["id"], answer["error"]["code"]) == (second["id"], "id_conflict")
    for task in tasks:
        submit(client, **task)
        check_story(story(client, task["id"]))
        assert [effect.note for effect in effects(server, task["id"])] == ["breath"]


# Cancelling.


def test_a_running_task_is_cancelled(client: WsClient) -> None:
    task_id = submit(client, "sleep", {"seconds": 60})
    started(client, task_id)
    client.send({"id": task_id, "cancel": True})
    events = story(client, task_id)
    check_story(events)
    assert (events[-1]["event"], events[-1]["error"]["code"]) == ("cancelled", "cancelled")


def test_a_task_that_waits_for_its_time_does_not_begin_before_it(server: Server, client: WsClient) -> None:
    began = time.monotonic()
    task_id = submit(client, "mark", delay=0.3)
    assert client.receive()["event"] == "accepted"
    events = story(client, task_id)
    assert time.monotonic() - began >= 0.3
    check_story(events)
    assert len(effects(server, task_id)) == 1


def test_a_task_is_cancelled_before_its_time_and_never_runs(server: Server, client: WsClient) -> None:
    task_id = submit(client, "mark", delay=0.2)
    client.send({"id": task_id, "cancel": True})
    events = story(client, task_id)
    assert [event["event"] for event in events] == ["accepted", "cancelled"]
    check_story(events)
    marker = submit(client, "mark", delay=0.3)
    client.final(marker)
    assert effects(server, task_id) == []


def test_cancelling_a_task_that_is_over_changes_nothing(client: WsClient) -> None:
    task_id = submit(client, "echo")
    client.final(task_id)
    client.send({"id": task_id, "cancel": True})
    assert client.ask({"ping": "after"}) == {"pong": "after"}
    client.send({"id": task_id, "attach": 0})
    assert client.final(task_id)["event"] == "succeeded"


@pytest.mark.parametrize("request_", [{"cancel": True}, {"attach": 0}])
def test_an_unknown_task_is_refused_by_its_id(client: WsClient, request_: dict[str, Any]) -> None:
    answer = client.ask({"id": "nobody", **request_})
    assert (answer["id"], answer["error"]["code"]) == ("nobody", "unknown_task")
    assert client.ask({"ping": 1}) == {"pong": 1}


# Asking.


def test_describe_lists_every_function(client: WsClient) -> None:
    functions = {entry["name"]: entry for entry in client.ask({"describe": True})["describe"]["functions"]}
    assert {"echo", "send_mail", "send_mails", "sleep", "countdown", "primes", "fail", "mark"} <= set(functions)
    assert list(functions) == sorted(functions)
    mail = functions["send_mail"]
    assert [parameter["name"] for parameter in mail["params"]] == ["from", "to", "contents", "subject", "html", "attachments", "reply_to"]
    assert [parameter["required"] for parameter in mail["params"]] == [True] * 3 + [False] * 4
    assert mail["params"][0]["type"] == "str"
    assert mail["doc"]
    assert functions["primes"]["options"]["run_in"] == "process"


def test_list_shows_ones_tasks_newest_first(client: WsClient, gate: Path) -> None:
    ids = []
    for number in range(5):
        ids.append(submit(client, "echo", {"n": number}))
        client.final(ids[-1])
    running = submit(client, "gated", {"gate": str(gate)})
    started(client, running)
    listed = client.ask({"list": {"limit": 6}})["list"]
    assert [entry["id"] for entry in listed] == [running, *reversed(ids)]
    assert [entry["state"] for entry in listed] == ["running"] + ["succeeded"] * 5
    assert [(entry["function"], entry["seq"]) for entry in listed] == [("gated", 2)] + [("echo", 3)] * 5
    assert all(abs(entry["accepted_at"] - time.time()) < 60 for entry in listed)
    assert client.ask({"list": {"limit": 1}})["list"] == listed[:1]
    assert client.ask({"list": {}})["list"][:6] == listed


@pytest.mark.parametrize("value", [7, 0, -1.5, "x", None, True, [], {"a": ["عربي"]}])
def test_a_ping_is_answered_with_what_it_carried(client: WsClient, value: Any) -> None:
    assert client.ask({"ping": value}) == {"pong": value}
