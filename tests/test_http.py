"""What the gateway serves besides WebSocket: a few files, read once, with headers that keep a page to itself."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.gateway.pages import FOLDER
from tests.harness import Server
from tests.rawclient import RawClient
from tests.test_websocket import Front


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    server = Server("--workers", "1", "--handshake-timeout", "1.5")
    yield Front(server)
    server.clean()


def get(front: Front, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own."""
    client = RawClient(front.port, upgrade=False)
    try:
        fields = {
            "Host": f"127.0.0.1:{front.port}",
            "Connection": "close",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        client.send("\r\n".join(lines).encode())
        return client.response()
    finally:
        client.socket.close()


def test_the_page_and_its_files_are_served_with_their_types(front: Front) -> None:
    for path, kind in (("/", "text/html"), ("/handoff.js", "text/javascript")):
        status, headers, body = get(front, path)
        assert status == 200
        assert headers["content-type"] == f"{kind}; charset=utf-8"
        assert body == (FOLDER / (path[1:] or "index.html")).read_bytes()


def test_a_page_keeps_to_itself(front: Front) -> None:
    _, headers, _ = get(front, "/")
    policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "strict-transport-security" not in headers  # this server speaks no TLS


@pytest.mark.parametrize("path", ["/nowhere", "/ws", "/tasks/x", "/tasks?x=1", "/functions", "/page.css"])
def test_whatever_is_answered_is_taken_for_what_it_is_and_framed_by_nobody(front: Front, path: str) -> None:
    _, headers, _ = get(front, path)
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_a_page_that_has_not_changed_is_not_sent_again(front: Front) -> None:
    _, headers, _ = get(front, "/handoff.js")
    assert headers["cache-control"] == "no-cache"
    for condition in (headers["etag"], f'"other", W/{headers["etag"]}', "*"):
        status, again, body = get(front, "/handoff.js", If_None_Match=condition)
        assert (status, again["etag"], body) == (304, headers["etag"], b"")
    assert get(front, "/handoff.js", If_None_Match='"other"')[0] == 200


def test_head_tells_what_get_would_send(front: Front) -> None:
    _, whole, body = get(front, "/")
    status, headers, nothing = get(front, "/", "HEAD")
    assert (status, nothing) == (200, b"")
    assert int(headers["content-length"]) == int(whole["content-length"]) == len(body)
    assert get(front, "/nowhere", "HEAD")[::2] == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_pages_can_be_read_only(front: Front, method: str) -> None:
    status, headers, _ = get(front, "/", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("length", ["3", "999999999999", "0x3", "3, 3", "-1", "+3"])
def test_bodies_are_refused_unread(front: Front, length: str) -> None:
    assert get(front, "/", "POST", Content_Length=length)[0] in (400, 413)
    assert get(front, "/", "POST", Transfer_Encoding="chunked")[0] == 413


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/../server.py",
        "/%2e%2e/server.py",
        "/..%2fserver.py",
        "//etc/passwd",
        "/package.json",
        "/handoff.js/",
        "/handoff.js%00",
        "*",
    ],
)
def test_nothing_but_the_pages_is_served(front: Front, path: str) -> None:
    assert get(front, path)[0] == 404


def test_a_get_of_the_websocket_address_is_told_to_upgrade(front: Front) -> None:
    status, headers, _ = get(front, "/ws")
    assert (status, headers["upgrade"], headers["sec-websocket-version"]) == (426, "websocket", "13")


def test_requests_on_a_kept_connection_are_answered_in_order_and_an_idle_one_is_closed(front: Front) -> None:
    head = f"HEAD /handoff.js HTTP/1.1\r\nHost: 127.0.0.1:{front.port}\r\n\r\n".encode()
    with RawClient(front.port, upgrade=False) as client:
        client.send(head * 3)
        data = b""
        while data.count(b"\r\n\r\n") < 3:
            data += client.receive()
        assert data.count(b"HTTP/1.1 200 OK\r\n") == 3
        start = time.monotonic()
        assert client.receive() == b""
        assert time.monotonic() - start < 8


def test_the_access_log_is_quiet(front: Front) -> None:
    get(front, "/quiet-please")
    assert "quiet-please" not in front.server.log()


def test_the_folder_holds_nothing_that_is_not_meant_to_be_seen() -> None:
    assert {path.suffix for path in Path(FOLDER).iterdir()} <= {".html", ".js", ".css", ".svg", ".json"}
