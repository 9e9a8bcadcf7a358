"""Bearer tokens over HTTP, attacked: none, wrong ones, others' tasks, what may not be called, and one that is taken back."""

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import open_gate
from tests.harness import Server, wait_until
from tests.httpapi import EventStream, HttpClient, Reply, fresh
from tests.tokenfile import TokenFile, bearer

ANNA, BERT = "anna-" + "a" * 40, "bert-" + "b" * 40


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    file.add(ANNA, "anna")
    file.add(BERT, "bert", functions='["echo", "ga?ed"]')
    return file


@pytest.fixture(scope="module")
def server(tokens: TokenFile) -> Iterator[Server]:
    flags = ("--tasks", "tests.sample_tasks", "--workers", "1", "--rate-failures", "0", "--max-unfinished", "3")
    running = Server(*flags, "--tokens", str(tokens.path))
    yield running
    running.clean()


class As:
    """Requests with a token."""

    def __init__(self, server: Server, token: str) -> None:
        self._client = HttpClient(server)
        self._header = bearer(token)

    def __enter__(self) -> "As":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        return self._client.ask(method, path, body, **(self._header | headers))

    def submit(self, function: str, args: Any = None, wait: int = 0, **more: Any) -> Reply:
        body = {"function": function, **({} if args is None else {"args": args}), **more}
        return self.ask("POST", "/tasks", body, **({"Prefer": f"wait={wait}"} if wait else {}))


@pytest.fixture
def anna(server: Server) -> Iterator[As]:
    with As(server, ANNA) as client:
        yield client


@pytest.fixture
def bert(server: Server) -> Iterator[As]:
    with As(server, BERT) as client:
        yield client


REQUESTS = (
    ("GET", "/tasks"), ("POST", "/tasks"), ("GET", "/tasks/x"), ("DELETE", "/tasks/x"), ("GET", "/tasks/x/events"), ("GET", "/functions"),
    ("GET", "/openapi.json"), ("HEAD", "/tasks"),
)  # fmt: skip


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_without_a_token_nothing_is_answered(server: Server, method: str, path: str) -> None:
    with HttpClient(server) as client:
        for headers in ({}, bearer("nobody"), bearer(ANNA[:-1]), {"Authorization": f"Basic {ANNA}"}, bearer(f"{ANNA}, {ANNA}")):
            reply = client.ask(method, path, {"function": "echo"} if method == "POST" else None, **headers)
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == 'Bearer realm="handoff"'
            assert method == "HEAD" or reply.code == "unauthorized"


def test_a_token_in_the_query_or_the_body_or_a_cookie_is_not_looked_at(server: Server) -> None:
    with HttpClient(server) as client:
        for name in ("token", "access_token"):
            assert client.ask("GET", f"/tasks?{name}={ANNA}").status == 401
        assert client.ask("POST", "/tasks", {"function": "echo", "token": ANNA}).status == 401
        assert client.ask("GET", "/tasks", Cookie=f"token={ANNA}").status == 401
    assert ANNA not in server.log()


def test_the_pages_need_none_and_a_preflight_has_none(server: Server) -> None:
    with HttpClient(server) as client:
        assert client.ask("GET", "/").status == 200
        assert client.ask("GET", "/handoff.js").status == 200
        origin = server.http_url.rstrip("/")
        reply = client.ask("OPTIONS", "/tasks", Origin=origin, Access_Control_Request_Method="POST")
        assert reply.status == 204
        assert "Authorization" in reply.headers["access-control-allow-headers"]


def test_only_what_is_allowed_can_be_called_or_seen(bert: As) -> None:
    for name in ("mark", "gated_again", "nope", "countdown"):
        reply = bert.submit(name)
        assert (reply.status, reply.code) == (403, "forbidden")
    assert bert.submit("echo", {"n": 1}, wait=10).body["result"] == {"n": 1}
    assert {entry["name"] for entry in bert.ask("GET", "/functions").body["functions"]} == {"echo", "gated"}
    schemas = bert.ask("GET", "/openapi.json").body["components"]["schemas"]
    assert {name for name in schemas if name.startswith("call.")} == {"call.echo", "call.gated"}
    assert "mark" not in str(schemas)


def test_each_is_shown_a_description_of_its_own(anna: As, bert: As) -> None:
    both = [set(one.ask("GET", "/openapi.json").body["components"]["schemas"]) for one in (anna, bert, anna, bert)]
    assert both[0] == both[2] > both[1] == both[3]


def test_owners_see_only_their_own(server: Server, anna: As, bert: As, gate: Path) -> None:
    name = fresh()
    assert anna.submit("gated", [str(gate)], id=name).status == 202
    for method, path in (("GET", f"/tasks/{name}"), ("DELETE", f"/tasks/{name}"), ("GET", f"/tasks/{name}/events")):
        assert bert.ask(method, path).code == "unknown_task"
    assert name not in [task["id"] for task in bert.ask("GET", "/tasks").body["tasks"]]
    assert bert.submit("echo", {"of": "bert"}, wait=10, id=name).body["result"] == {"of": "bert"}
    assert anna.ask("GET", f"/tasks/{name}").body["function"] == "gated"
    open_gate(gate)
    assert anna.ask("GET", f"/tasks/{name}", Prefer="wait=10").body["state"] == "succeeded"
    with EventStream(server, name, Authorization=f"Bearer {BERT}") as events:
        assert [event["event"] for event in events] == ["accepted", "started", "succeeded"]
        assert BERT not in server.log()


def test_what_one_has_unfinished_does_not_count_for_another_from_the_same_address(anna: As, bert: As, gate: Path) -> None:
    for _ in range(3):
        assert anna.submit("gated", [str(gate)]).status == 202
    assert anna.submit("gated", [str(gate)]).code == "busy"
    assert bert.submit("gated", [str(gate)]).status == 202
    open_gate(gate)


def test_a_token_that_is_taken_back_ends_what_waits(server: Server, tokens: TokenFile, gate: Path) -> None:
    short, name = secrets.token_urlsafe(32), fresh()
    tokens.add(short, "short")
    with As(server, short) as client:
        wait_until(lambda: client.ask("GET", "/tasks").status == 200)
        client.submit("gated", [str(gate)], id=name)
        replies: list[Reply] = []
        waiting = threading.Thread(target=lambda: replies.append(client.ask("GET", f"/tasks/{name}", Prefer="wait=30")))
        waiting.start()
        with EventStream(server, name, Authorization=f"Bearer {short}") as events:
            began = time.monotonic()
            tokens.remove(short)
            assert [event["event"] for event in events] == ["accepted", "started"]  # and the stream ends
            waiting.join(10)
            assert time.monotonic() - began < 6
        assert replies[0].code == "unauthorized"
        assert client.ask("GET", f"/tasks/{name}").status == 401
    open_gate(gate)


def test_a_token_that_is_taken_back_while_its_body_comes_submits_nothing(server: Server, tokens: TokenFile) -> None:
    short, host = secrets.token_urlsafe(32), server.http_url.removeprefix("http://").rstrip("/")
    tokens.add(short, "short")
    with As(server, short) as client:
        wait_until(lambda: client.ask("GET", "/tasks").status == 200)
        body = b'{"function": "echo"}'
        head = f"POST /tasks HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {short}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host.split(":")[0], int(host.split(":")[1])), timeout=10) as sock:
            sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
            tokens.remove(short)
            wait_until(lambda: client.ask("GET", "/tasks").status == 401)
            sock.sendall(body[-1:])
            assert sock.recv(65536).startswith(b"HTTP/1.1 401 ")
