"""What may not come in over HTTP: bodies that are too large, too slow, malformed or smuggled; pages of other sites. The same gateway
serves on after all of it."""

import json
import socket
import time
from collections.abc import Iterator

import pytest

from app.kinds import KIB
from tests.effects import effects
from tests.harness import Server
from tests.httpapi import HttpClient, Reply, fresh, port_of
from tests.rawclient import RawClient

LIMIT = 8 * KIB
FLAGS = (
    "--tasks",
    "tests.sample_tasks",
    "--workers",
    "1",
    "--max-message",
    str(LIMIT),
    "--handshake-timeout",
    "1",
    "--origins",
    "https://shop.example",
)
MARK = b'{"function":"mark"}'


@pytest.fixture(autouse=True)
def alive(server: Server) -> Iterator[None]:
    """None of these may end a process."""
    before = server.gateway_pid(), server.worker_pids()
    yield
    assert (server.gateway_pid(), server.worker_pids()) == before
    with HttpClient(server) as api:
        assert api.submit("echo", {"a": 1}, wait=9).body["result"] == {"a": 1}
    assert "Traceback" not in server.log()


@pytest.fixture
def api(server: Server) -> Iterator[HttpClient]:
    with HttpClient(server) as client:
        yield client


@pytest.fixture
def raw(server: Server) -> Iterator[RawClient]:
    with RawClient(port_of(server), upgrade=False) as client:
        yield client


def head(*fields: str, path: str = "/tasks", method: str = "POST", version: str = "HTTP/1.1") -> bytes:
    lines = [f"{method} {path} {version}", "Host: localhost", "Content-Type: application/json", *fields, "", ""]
    return "\r\n".join(lines).encode()


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def answered(raw: RawClient) -> Reply:
    """The one answer before the stream ends."""
    status, headers, body = raw.response()
    return Reply(status, headers, json.loads(body))


# Bodies.


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_request"),
        (b"{", "bad_request"),
        (b"[]", "bad_request"),
        (b"{}", "bad_request"),
        (b'"x"', "bad_request"),
        (b'{"function": 1}', "bad_request"),
        (b'{"function":"echo"} {}', "bad_request"),
        (b'{"function":"echo","args":{"a":NaN}}', "bad_request"),
        (b'{"function":"echo","args":{"a":1e999}}', "bad_request"),
        (b'{"function":"echo","args":{"a":"\\ud800"}}', "bad_request"),
        (b'{"function":"echo","args":{"a":' + b"[" * 40 + b"]" * 40 + b"}}", "bad_request"),
        (b'{"function":"echo","args":"x"}', "bad_request"),
        (b'{"function":"echo","id":"a b"}', "bad_request"),
        (b'{"function":"echo","id":null}', "bad_request"),
        (b'{"function":"echo","delay":-1}', "bad_request"),
        (b'{"function":"echo","priority":0.5}', "bad_request"),
        (b'{"function":"echo","events":"final"}', "bad_request"),
        (b'{"function":"echo","on_disconnect":"cancel"}', "bad_request"),
        (b'{"function":"echo","colour":"red"}', "bad_request"),
        (b"\xff\xfe", "bad_request"),
        (b'{"function":"' + b"x" * 200 + b'"}', "unknown_function"),
        (b'{"function":"echo","args":[1]}', "bad_arguments"),
        (b'{"function":"spin"}', "bad_arguments"),
        (b'{"function":"spin","args":{"seconds":"1"}}', "bad_arguments"),
        (b'{"function":"send_mails","args":{"from":"a","to":["b",1],"subject":"","contents":""}}', "bad_arguments"),
        (b'{"function":"mark","args":{"notes":"x"}}', "bad_arguments"),
        (b'{"function":"mark","args":["x",1,2]}', "bad_arguments"),
        (b'{"function":"mark","args":{"note":"' + b"x" * LIMIT + b'"}}', "too_large"),
    ],
)
def test_what_is_no_task_is_refused_and_the_connection_goes_on_where_it_can(api: HttpClient, body: bytes, code: str) -> None:
    reply = api.ask("POST", "/tasks", body)
    assert reply.code == code
    assert reply.status == {"bad_request": 400, "too_large": 413}.get(code, 422)
    assert reply.body["type"] == f"/openapi.json#/components/responses/{code}"
    assert reply.headers.get("connection") == ("close" if code == "too_large" else None)


@pytest.mark.parametrize(
    ("kind", "encoding"), [("text/plain", None), ("application/x-www-form-urlencoded", None), ("", None), ("application/json", "gzip")]
)
def test_only_json_is_taken(server: Server, api: HttpClient, kind: str, encoding: str | None) -> None:
    before = len(effects(server))
    reply = api.ask("POST", "/tasks", MARK, Content_Type=kind, **({"Content-Encoding": encoding} if encoding else {}))
    assert (reply.status, reply.code, reply.headers["accept"]) == (415, "unsupported_media_type", "application/json")
    assert api.submit("echo", wait=9).status == 200
    assert len(effects(server)) == before


def test_json_may_say_that_it_is_utf_8(api: HttpClient) -> None:
    assert api.ask("POST", "/tasks", MARK, Content_Type="Application/JSON; charset=utf-8").status == 202


def test_a_body_as_large_as_may_be_is_taken(api: HttpClient) -> None:
    body = b'{"function":"echo","args":{"a":"' + b"x" * LIMIT
    body = body[: LIMIT - 3] + b'"}}'
    assert api.ask("POST", "/tasks", body).status == 202
    assert api.ask("POST", "/tasks", body + b" ").code == "too_large"


def test_a_body_that_is_said_to_be_huge_is_refused_before_it_comes(raw: RawClient) -> None:
    raw.send(head("Content-Length: 99999999999"))
    assert answered(raw).code == "too_large"


def test_who_asks_first_is_told_before_it_sends(server: Server, raw: RawClient) -> None:
    raw.send(head("Content-Length: 99999", "Expect: 100-continue"))
    assert answered(raw).code == "too_large"
    with RawClient(port_of(server), upgrade=False) as other:
        other.send(head(f"Content-Length: {len(MARK)}", "Expect: 100-continue", "Connection: close"))
        assert other.head() == (100, {}, b"")
        other.send(MARK)
        assert other.response()[0] == 202


def test_a_body_that_comes_too_slowly_is_late(raw: RawClient) -> None:
    raw.send(head("Content-Length: 100"))
    start = time.monotonic()
    raw.send(b"{")
    reply = answered(raw)
    assert (reply.status, reply.code) == (408, "late")
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_body_that_breaks_off_is_no_task(server: Server, raw: RawClient, framing: str) -> None:
    before = len(effects(server))
    raw.send(head(framing), MARK if "Length" in framing else chunked(MARK)[:-5])
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.receive() == b""
    assert len(effects(server)) == before


# Chunks.


def test_a_body_in_chunks_is_taken_however_they_fall(raw: RawClient) -> None:
    for body in (
        chunked(MARK),
        chunked(*(MARK[place : place + 1] for place in range(len(MARK)))),
        b"%X;name=value\r\n" % len(MARK) + MARK + b"\r\n000\r\nTrailer: passed over\r\n\r\n",
    ):
        raw.send(head("Transfer-Encoding: chunked"), body[:7])
        raw.send(body[7:])
        assert raw.head()[0] == 202


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"3\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 2000 + b"\r\nhello\r\n0\r\n\r\n",
        b"1" * 17 + b"\r\n",
        b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    ],
)
def test_chunks_that_are_none_end_the_connection(raw: RawClient, body: bytes) -> None:
    raw.send(head("Transfer-Encoding: chunked"), body)
    reply = answered(raw)
    assert (reply.status, reply.code, reply.headers["connection"]) == (400, "bad_request", "close")


@pytest.mark.parametrize("body", [b"%x\r\n" % (LIMIT + 1), chunked(b"x" * LIMIT, b"x"), (b"1;" + b"x" * 900 + b"\r\nx\r\n") * 200])
def test_chunks_that_are_too_much_are_refused_as_they_come(raw: RawClient, body: bytes) -> None:
    raw.send(head("Transfer-Encoding: chunked"), body)
    assert answered(raw).code == "too_large"


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: identity",),
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5, 5",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length: ",),
    ],
)
def test_a_body_whose_end_can_be_told_in_two_ways_is_refused(raw: RawClient, fields: tuple[str, ...]) -> None:
    raw.send(head(*fields), b"hello", head(method="GET", path="/functions"))
    status, headers, body = raw.response()
    assert (status, headers["connection"]) == (400, "close")
    assert b"HTTP/1.1 " not in body


def test_chunks_in_http_1_0_are_refused(raw: RawClient) -> None:
    raw.send(head("Transfer-Encoding: chunked", version="HTTP/1.0"), chunked(MARK))
    assert raw.response()[0] == 400


# One request after the other.


def test_requests_behind_bodies_are_answered_in_order(server: Server, raw: RawClient) -> None:
    ids = [fresh() for _ in range(3)]
    bodies = [json.dumps({"function": "mark", "id": task_id}).encode() for task_id in ids]
    bad = b'{"function":"nothing"}'
    raw.send(
        head(f"Content-Length: {len(bodies[0])}") + bodies[0],
        head("Transfer-Encoding: chunked") + chunked(bodies[1]),
        head(f"Content-Length: {len(bad)}") + bad,
        head(f"Content-Length: {len(bodies[2])}", "Connection: close") + bodies[2],
    )
    _, _, data = raw.response()
    lines = [line for line in data.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert [line.rpartition(b"HTTP/1.1 ")[2][:3] for line in lines] == [b"202", b"422", b"202"]  # and the first, whose head was read
    for task_id in ids:
        with HttpClient(server) as api:
            api.until(task_id, "succeeded")


def test_what_follows_a_body_that_was_not_read_is_no_request(server: Server, raw: RawClient) -> None:
    smuggled = head(f"Content-Length: {len(MARK)}") + MARK
    before = len(effects(server))
    raw.send(head(f"Content-Length: {len(smuggled)}", path="/tasks/x", method="DELETE"), smuggled, smuggled)
    status, headers, body = raw.response()
    assert (status, headers["connection"]) == (404, "close")
    assert b"HTTP/1.1 " not in body
    assert len(effects(server)) == before


@pytest.mark.parametrize("path", ["/", "/handoff.js", "/ws", "/nowhere"])
def test_beside_the_api_no_request_has_a_body(raw: RawClient, path: str) -> None:
    raw.send(head(f"Content-Length: {len(MARK)}", path=path), MARK)
    assert raw.response()[0] == 413


def test_one_that_sends_request_after_request_does_not_hold_up_the_others(server: Server, raw: RawClient, api: HttpClient) -> None:
    raw.send(head(method="HEAD", path="/tasks/nobody") * 20_000)
    start = time.monotonic()
    assert api.ask("GET", "/tasks/nobody").status == 404
    assert time.monotonic() - start < 1


# Where a request comes from.


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost", "http://127.0.0.1:1", "https://shop.example.evil.example"]
)
def test_pages_of_other_sites_cannot_ask(server: Server, api: HttpClient, origin: str) -> None:
    before = len(effects(server))
    for method, path in (("POST", "/tasks"), ("GET", "/tasks"), ("DELETE", "/tasks/x"), ("OPTIONS", "/tasks")):
        reply = api.ask(method, path, MARK if method == "POST" else None, Origin=origin)
        assert (reply.status, reply.code) == (403, "forbidden")
        assert "access-control-allow-origin" not in reply.headers
    api.submit("echo", wait=9)
    assert len(effects(server)) == before


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", "[", "a b"])
def test_a_name_that_was_made_to_point_here_is_not_served(api: HttpClient, host: str) -> None:
    reply = api.ask("GET", "/tasks", Host=host)
    assert (reply.status, reply.code) == (403, "forbidden")


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "LOCALHOST", "127.0.0.1:1", "10.0.0.5", "[::1]:8080", "shop.example"])
def test_addresses_and_names_of_its_own_are_served(api: HttpClient, host: str) -> None:
    assert api.ask("GET", "/tasks", Host=host).status == 200


def test_a_page_of_an_allowed_origin_may_ask_and_read(server: Server, api: HttpClient) -> None:
    for origin in ("https://shop.example", server.http_url.rstrip("/")):
        asked = api.ask("OPTIONS", "/tasks", Origin=origin, Access_Control_Request_Method="POST")
        assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, origin)
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "Content-Type" in asked.headers["access-control-allow-headers"]
        reply = api.ask("POST", "/tasks", {"function": "echo"}, Origin=origin)
        assert (reply.status, reply.headers["access-control-allow-origin"], reply.headers["vary"]) == (202, origin, "Origin")
    assert "access-control-allow-origin" not in api.ask("GET", "/functions").headers
