"""The HTTP API against a real server: what is answered to a submit, a look, a list, a cancel; ids; what there is to read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import effects, open_gate
from tests.harness import Server, WsClient, wait_until
from tests.httpapi import HttpClient, fresh
from tests.wstasks import story, submit

FLAGS = ("--tasks", "tests.sample_tasks")
QUERIES = ("limit=0", "limit=1001", "limit=x", "limit=", "limit=%D9%A3", "limit=1&limit=2", "state=done", "page=2", "function=%ff")


@pytest.fixture
def api(server: Server) -> Iterator[HttpClient]:
    with HttpClient(server) as client:
        yield client


# Submit and look.


def test_a_task_is_accepted_and_found_where_the_answer_says(api: HttpClient) -> None:
    accepted = api.submit("echo", {"text": "hi"})
    assert accepted.status == 202
    task_id = accepted.body["id"]
    assert accepted.headers["location"] == f"/tasks/{task_id}"
    assert accepted.body["function"] == "echo"
    view = api.until(task_id, "succeeded")
    assert view == {"id": task_id, "function": "echo", "state": "succeeded", "seq": 3, "attempt": 1, "result": {"text": "hi"}}


def test_who_prefers_to_wait_gets_the_result(api: HttpClient) -> None:
    reply = api.submit("countdown", {"start": 2, "interval": 0.01}, wait=9)
    assert (reply.status, reply.headers["preference-applied"]) == (200, "wait=9")
    assert (reply.body["state"], reply.body["seq"]) == ("succeeded", 6)


def test_a_failure_is_a_result_like_any_other(api: HttpClient) -> None:
    reply = api.submit("fail", {"message": "no"}, wait=9)
    assert (reply.status, reply.body["state"], reply.body["error"]["code"]) == (200, "failed", "failed")
    assert "no" in reply.body["error"]["message"]
    assert "result" not in reply.body


def test_who_has_waited_long_enough_is_told_that_it_goes_on(api: HttpClient, gate: Path) -> None:
    reply = api.submit("gated", {"gate": str(gate)}, wait=1)
    assert (reply.status, reply.headers["preference-applied"], reply.body["state"]) == (202, "wait=1", "running")
    open_gate(gate)
    waited = api.ask("GET", reply.headers["location"], Prefer="respond-async, wait=9")
    assert (waited.status, waited.body["state"]) == (200, "succeeded")


def test_how_far_it_is_can_be_seen(api: HttpClient, gate: Path) -> None:
    task_id = api.submit("second_time", {"after": 60}).body["id"]
    view = api.until(task_id, "retrying")
    assert view["attempt"] == 1
    assert api.ask("DELETE", f"/tasks/{task_id}").status == 202
    running = api.submit("report_then_wait", {"gate": str(gate)}).body["id"]
    seen = wait_until(lambda: api.ask("GET", f"/tasks/{running}").body.get("progress"))
    assert seen == {"done": 1, "total": 2, "note": "half"}
    open_gate(gate)
    assert "progress" not in api.until(running, "succeeded")


def test_the_end_of_a_long_story_is_found(api: HttpClient) -> None:
    reply = api.submit("flow", {"count": 700}, wait=30)
    assert (reply.body["state"], reply.body["seq"]) == ("succeeded", 703)
    assert api.ask("GET", reply.headers["location"]).body == reply.body


def test_a_task_that_waits_for_its_time_is_queued(api: HttpClient) -> None:
    reply = api.submit("echo", delay=60, priority=5)
    assert (reply.status, reply.body["state"], reply.body["attempt"]) == (202, "queued", 0)
    assert api.ask("DELETE", reply.headers["location"]).status == 202
    assert api.until(reply.body["id"], "cancelled")["error"]["code"] == "cancelled"


def test_a_running_task_is_cancelled_and_stays_to_be_seen(api: HttpClient, gate: Path) -> None:
    task_id = api.submit("gated", {"gate": str(gate)}).body["id"]
    api.until(task_id, "running")
    reply = api.ask("DELETE", f"/tasks/{task_id}")
    assert (reply.status, reply.body["id"]) == (202, task_id)
    assert api.until(task_id, "cancelled")["error"]["code"] == "cancelled"
    again = api.ask("DELETE", f"/tasks/{task_id}")
    assert (again.status, again.body["state"]) == (202, "cancelled")


# The same id is the same task.


def test_sent_again_a_task_is_not_run_again(server: Server, api: HttpClient) -> None:
    task_id = fresh()
    first = api.submit("mark", {"note": "x"}, wait=9, id=task_id)
    again = [api.submit("mark", {"note": "x"}, id=task_id), api.submit("mark", {"note": "x"}, wait=9, id=task_id)]
    assert [(reply.status, reply.body) for reply in again] == [(200, first.body)] * 2
    assert len(effects(server, task_id)) == 1


@pytest.mark.parametrize("form", ["{}", '"{}"'])
def test_an_idempotency_key_is_an_id(server: Server, api: HttpClient, form: str) -> None:
    task_id = fresh()
    for _ in range(2):
        reply = api.ask("POST", "/tasks", {"function": "mark"}, Idempotency_Key=form.format(task_id), Prefer="wait=9")
        assert (reply.status, reply.body["id"]) == (200, task_id)
    assert len(effects(server, task_id)) == 1


def test_an_id_is_not_used_for_another_task(api: HttpClient, gate: Path) -> None:
    over, running = fresh(), fresh()
    api.submit("echo", {"a": 1}, wait=9, id=over)
    api.submit("gated", {"gate": str(gate)}, id=running)
    for task_id in (over, running):
        reply = api.submit("echo", {"a": True}, id=task_id)
        assert (reply.status, reply.code) == (409, "id_conflict")
    reply = api.ask("POST", "/tasks", {"function": "echo", "id": fresh()}, Idempotency_Key=fresh())
    assert (reply.status, reply.code) == (409, "id_conflict")


def test_a_task_of_a_websocket_is_the_same_task_here_and_the_other_way_round(server: Server, api: HttpClient, client: WsClient) -> None:
    task_id = submit(client, "countdown", {"start": 1, "interval": 0})
    told = story(client, task_id)
    view = api.submit("countdown", {"interval": 0, "start": 1}, wait=9, id=task_id)
    assert (view.status, view.body["seq"]) == (200, told[-1]["seq"])
    other = api.submit("echo", {"b": 1}, wait=9).body["id"]
    client.send({"id": other, "attach": 0})
    assert [event["event"] for event in story(client, other)] == ["accepted", "started", "succeeded"]


def test_a_task_whose_client_wants_the_end_alone_can_be_seen(server: Server, api: HttpClient, client: WsClient, gate: Path) -> None:
    task_id = submit(client, "gated", {"gate": str(gate)}, events="final")
    assert client.ask({"ping": 0}) == {"pong": 0}
    wait_until(lambda: effects(server, task_id))
    assert api.ask("GET", f"/tasks/{task_id}").body["function"] == "gated"
    open_gate(gate)
    assert api.submit("gated", {"gate": str(gate)}, wait=9, id=task_id).body["state"] == "succeeded"


# Lists and descriptions.


def test_tasks_are_listed_newest_first_and_filtered(api: HttpClient) -> None:
    ids = [api.submit("echo" if number % 2 else "fail", wait=9).body["id"] for number in range(6)]
    tasks = api.ask("GET", "/tasks?limit=6").body["tasks"]
    assert [task["id"] for task in tasks] == ids[::-1]
    assert set(tasks[0]) == {"id", "function", "state", "seq", "attempt", "accepted_at", "order", "finished_at"}
    failed = api.ask("GET", "/tasks?limit=2&state=failed&function=fail").body["tasks"]
    assert [task["id"] for task in failed] == [ids[4], ids[2]]
    assert api.ask("GET", "/tasks?function=nothing").body == {"tasks": []}


def test_a_list_says_where_the_next_goes_on(api: HttpClient) -> None:
    for number in range(5):
        api.submit("echo", id=f"page-{number}", wait=9)
    found, query = [], "/tasks?id=page-&limit=2"
    page = api.ask("GET", query).body
    while "before" in page:
        found.append([task["id"] for task in page["tasks"]])
        page = api.ask("GET", f"{query}&before={page['before']}").body
    assert [*found, [task["id"] for task in page["tasks"]]] == [["page-4", "page-3"], ["page-2", "page-1"], ["page-0"]]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "state=done",
        "limit=1&limit=2",
        "page=2",
        "a=%ff",
        "limit=%D9%A3",
        "before=-1",
        "id=",
        "id=a%20b",
        "args=true",
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(api: HttpClient, query: str) -> None:
    reply = api.ask("GET", f"/tasks?{query}")
    assert (reply.status, reply.code) == (400, "bad_request")


def test_the_functions_are_those_of_the_websocket(api: HttpClient, client: WsClient) -> None:
    assert api.ask("GET", "/functions").body == client.ask({"describe": True})["describe"]


def test_the_description_has_a_schema_for_each_function(api: HttpClient) -> None:
    reply = api.ask("GET", "/openapi.json")
    document = reply.body
    assert (reply.status, document["openapi"]) == (200, "3.1.0")
    names = [entry["name"] for entry in api.ask("GET", "/functions").body["functions"]]
    assert list(document["components"]["schemas"]["call"]["discriminator"]["mapping"]) == names
    mail = document["components"]["schemas"]["call.send_mails"]
    by_name = mail["properties"]["args"]["anyOf"][0]
    assert by_name["required"] == ["from", "to", "subject", "contents"]
    assert by_name["properties"]["to"] == {"type": "array", "items": {"type": "string"}}


def test_the_description_resolves(api: HttpClient) -> None:
    document = api.ask("GET", "/openapi.json").body

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for member in value.values():
                yield from references(member)
        elif isinstance(value, list):
            for member in value:
                yield from references(member)

    found = set(references(document)) | {problem["type"].removeprefix("/openapi.json") for problem in [api.ask("GET", "/tasks/x").body]}
    assert found
    for reference in found:
        where = document
        for part in reference.removeprefix("#/").split("/"):
            where = where[part]


# Methods and paths.


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/tasks", "GET, POST, HEAD, OPTIONS"),
        ("/tasks/x", "GET, DELETE, HEAD, OPTIONS"),
        ("/tasks/x/events", "GET, HEAD, OPTIONS"),
        ("/functions", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
def test_what_a_path_takes_is_told(api: HttpClient, path: str, methods: str) -> None:
    options = api.ask("OPTIONS", path)
    assert (options.status, options.headers["allow"]) == (204, methods)
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"} - set(methods.split(", ")):
        reply = api.ask(method, path)
        assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", methods)


def test_head_tells_what_get_would_send(api: HttpClient) -> None:
    task_id = api.submit("echo", wait=9).body["id"]
    for path in ("/functions", f"/tasks/{task_id}", "/tasks/nobody"):
        whole, head = api.ask("GET", path), api.ask("HEAD", path)
        assert (head.status, head.body) == (whole.status, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
    head = api.ask("HEAD", f"/tasks/{task_id}/events")
    assert (head.status, head.headers["content-type"], head.body) == (200, "text/event-stream", b"")
    assert api.ask("GET", "/tasks?limit=1").status == 200


@pytest.mark.parametrize("path", ["/tasks/nobody", "/tasks/nobody/events", "/tasks/", "/tasks/a%20b", "/tasks/" + "a" * 65])
def test_a_task_that_is_not_known_is_not_found(api: HttpClient, path: str) -> None:
    reply = api.ask("GET", path)
    assert (reply.status, reply.code) == (404, "unknown_task")


@pytest.mark.parametrize("path", ["/tasks/a/b", "/tasks/a/events/", "/functions/", "/openapi.json/x"])
def test_beside_the_paths_there_is_nothing(api: HttpClient, path: str) -> None:
    reply = api.ask("GET", path)
    assert (reply.status, reply.code) == (404, "not_found")


def test_every_answer_keeps_to_itself(api: HttpClient) -> None:
    for path in ("/functions", "/tasks/nobody", f"/tasks/{api.submit('echo', wait=9).body['id']}/events"):
        headers = api.ask("GET", path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_pages_are_where_they_were(api: HttpClient) -> None:
    assert api.ask("GET", "/").headers["content-type"] == "text/html; charset=utf-8"
    assert api.ask("GET", "/handoff.js").status == 200
