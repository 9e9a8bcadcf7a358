"""The way in: handshakes that are right, wrong, slow, endless or foreign, requests that are none, and what a handler says of them."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from app.address import Address
from app.gateway.handshake import allowed_origins
from tests.harness import Server, wait_until
from tests.rawclient import ACCEPT, RawClient, request, text_frame
from tests.test_websocket import Front

TIMEOUT = 1.5


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    server = Server(
        "--workers", "1", "--handler", "tests.gateway_handlers", "--handshake-timeout", str(TIMEOUT), "--origins", "https://a.example"
    )
    running = Front(server)
    yield running
    assert server.gateway_pid() == running.pid
    server.clean()


def ask(front: Front, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send this, and read the whole answer."""
    with RawClient(front.port, upgrade=False) as client:
        client.send(data)
        return client.response()


def opens(front: Front, path: str = "/ws") -> bool:
    """Whether the server takes a connection and answers on it."""
    with front.connect(path) as client:
        client.send(text_frame('{"ping": 1}' if path == "/ws" else "echo here"))
        return client.message() in ('{"pong":1}', "here")


WRONG = {
    "no version": (request(Sec_WebSocket_Version=None), 426),
    "version 8": (request(Sec_WebSocket_Version="8"), 426),
    "versions": (request(Sec_WebSocket_Version="13, 8"), 426),
    "no key": (request(Sec_WebSocket_Key=None), 400),
    "short key": (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
    "long key": (request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZSBpcyBsb25n"), 400),
    "key that is not base64": (request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZ!=="), 400),
    "key that is not ASCII": (request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZ\xe9=="), 400),
    "no connection": (request(Connection="keep-alive"), 400),
    "no host": (request(Host=None), 400),
    "HTTP/1.0": (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "POST": (request().replace(b"GET", b"POST"), 405),
    "body": (request(Content_Length="5") + b"hello", 400),
    "negative body": (request(Content_Length="-5"), 400),
    "body of words": (request(Content_Length="five"), 400),
    "chunks": (request(Transfer_Encoding="chunked"), 400),
    "unknown path": (request("/elsewhere"), 404),
    "foreign origin": (request(Origin="https://evil.example"), 403),
    "refused by the handler": (request("/?refused"), 403),
    "forbidden by the handler": (request("/?forbidden"), 403),
    "handler that breaks": (request("/?broken"), 500),
    "handler that takes too long": (request("/?slow"), 503),
    "no HTTP": (b"HELO example.org\r\n\r\n", 400),
    "garbage": (bytes(range(128, 256)) * 4 + b"\r\n\r\n", 400),
    "no colon": (b"GET /ws HTTP/1.1\r\nHost\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
    "space in a name": (b"GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n", 400),
    "bare line feed": (b"GET / HTTP/1.1\r\nHost: a\nContent-Length: 5\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "long line": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 200 + b"\r\n", 400),
    "large headers": (b"GET / HTTP/1.1\r\n" + b"X-A: " + b"b" * 70000 + b"\r\n\r\n", 431),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_what_is_wrong_with_it(front: Front, name: str) -> None:
    data, status = WRONG[name]
    code, headers, body = ask(front, data)
    assert code == status
    assert headers["connection"] == "close"
    assert len(body) == int(headers["content-length"])
    assert body or status == 414
    if status == 426:
        assert headers["sec-websocket-version"] == "13"


def test_no_refusal_is_an_error_in_the_log(front: Front) -> None:
    log = front.server.log()
    for name in WRONG:
        if name != "handler that breaks":
            assert ask(front, WRONG[name][0])[0] == WRONG[name][1]
    added = front.server.log().removeprefix(log)
    assert "Traceback" not in added
    assert "ERROR" not in added


RIGHT = {
    "plain": request(),
    "Firefox": request(Connection="keep-alive, Upgrade", Upgrade="WebSocket"),
    "extensions and protocols that are not spoken": request(
        Sec_WebSocket_Extensions="permessage-deflate", Sec_WebSocket_Protocol="chat, x"
    ),
    "a query": request("/ws?room=1"),
    "lower case": request().replace(b"Sec-WebSocket-", b"sec-websocket-").replace(b"Upgrade:", b"upgrade:"),
    "an origin from the settings": request(Origin="https://a.example"),
    "an empty body": request(Content_Length="0"),
    "line ends before it": b"\r\n\r\n" + request(),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_handshake_is_answered_as_the_rfc_has_it(front: Front, name: str) -> None:
    with RawClient(front.port, upgrade=False) as client:
        client.send(RIGHT[name])
        status, headers, rest = client.head()
    assert (status, headers, rest) == (101, {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT}, b"")


def test_the_origin_may_be_this_server_by_any_name_of_this_machine_and_never_by_the_host_header(front: Front) -> None:
    def status(origin: str, **headers: str) -> int:
        with RawClient(front.port, upgrade=False) as client:
            client.send(request(port=front.port, Origin=origin, **headers))
            return client.head()[0]

    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert status(f"http://{host}:{front.port}") == 101
        assert status(f"https://{host}:{front.port}") == 101
        assert status(f"http://{host}:{front.port + 1}") == 403
        assert status(f"http://{host}") == 403
    port = front.port
    for origin in (
        "null", "", " ", "*", "http://evil.example", f"http://localhost.evil.example:{port}", f"ftp://localhost:{port}", "file://",
        f"http://evil.example#http://localhost:{port}", f"http://localhost:{port}@evil.example", f"http://evil.example/http://localhost:{port}",
        f"http://localhost:{port}/", f"http://localhost:{port}/page", f"HTTP://LOCALHOST:{port}", f"http://localhost:{port} http://evil.example",
        f"http://localhost:{port},http://evil.example", f"http://127.1:{port}", f"http://2130706433:{port}", f"http://0.0.0.0:{port}",
        f"http://localhost.:{port}", f"http://localhost:0{port}", "https://a.example.evil.example", "https://A.EXAMPLE", "http://a.example",
        "https://a.example:443", "https://a.example:8443", "https://sub.a.example",
    ):  # fmt: skip
        assert status(origin) == 403, origin
    assert status("https://a.example") == 101
    with RawClient(port, upgrade=False) as client:  # two of them: a proxy may look at one, and we at the other
        client.send(request(port=port, Origin="https://a.example").replace(b"\r\n\r\n", b"\r\nOrigin: http://evil.example\r\n\r\n"))
        assert client.head()[0] == 403
    assert status(f"http://rebound.example:{front.port}", Host=f"rebound.example:{front.port}") == 403


def test_at_the_default_port_origins_have_none() -> None:
    assert "http://localhost" in allowed_origins(Address("127.0.0.1", 80), ())
    assert "https://example.org" in allowed_origins(Address("0.0.0.0", 80), ["https://example.org/"])
    assert allowed_origins(Address("", 0, "/run/x.sock"), ()) == frozenset()
    assert "http://[fd00::1]:8080" in allowed_origins(Address("fd00::1", 8080), ())


def test_what_a_handler_sends_before_the_connection_is_open_follows_the_handshake(front: Front) -> None:
    with front.connect("/?greeted") as client:
        assert client.message() == "welcome"
        client.send(text_frame("echo and on"))
        assert client.message() == "and on"


def test_a_handler_may_close_a_connection_before_it_is_open(front: Front) -> None:
    with front.connect("/?unwelcome") as client:
        assert client.drain() == (4001, "not you")


def test_handshakes_a_byte_at_a_time_are_cut_off_and_hold_nobody_up(front: Front) -> None:
    files = front.files()
    slowest = 0.0
    with ExitStack() as stack:
        slow = [stack.enter_context(RawClient(front.port, upgrade=False)) for _ in range(200)]
        start = time.monotonic()
        for byte in request("/ws", front.port)[:-4]:
            for client in slow:
                with suppress(ConnectionError):  # cut off already
                    client.send(bytes([byte]))
            began = time.monotonic()
            assert opens(front)
            slowest = max(slowest, time.monotonic() - began)
            if time.monotonic() - start > TIMEOUT:
                break
        assert slowest < 1.0
        assert slow[0].response()[0] == 408
    wait_until(lambda: front.files() <= files)


def test_a_connection_that_says_nothing_is_closed(front: Front) -> None:
    with RawClient(front.port, upgrade=False) as client:
        start = time.monotonic()
        assert client.receive() == b""
        assert TIMEOUT * 0.9 < time.monotonic() - start < TIMEOUT + 5


def test_endless_headers_are_refused_and_cost_no_memory(front: Front) -> None:
    before = front.memory()
    for _ in range(5):
        with RawClient(front.port, upgrade=False) as client, suppress(ConnectionError):  # it has been heard enough
            client.send(b"GET /ws HTTP/1.1\r\n", (b"X-Filler: " + b"x" * 8000 + b"\r\n") * 700)
    assert front.memory() - before < 8 << 20
    assert opens(front)


def test_a_refusal_reaches_who_is_still_sending(front: Front) -> None:
    assert ask(front, b"GET /ws HTTP/1.1\r\nX-Filler: " + b"x" * 1_000_000)[0] == 431


def test_a_half_closed_handshake_and_one_that_vanishes_leave_nothing_behind(front: Front) -> None:
    files = front.files()
    for data in (b"", b"GET", request()[:50], request()):
        for how in (socket.SHUT_WR, socket.SHUT_RDWR):
            with RawClient(front.port, upgrade=False) as client:
                client.send(data)
                client.socket.shutdown(how)
    wait_until(lambda: front.files() <= files)
    assert opens(front)
    assert opens(front, "/")
