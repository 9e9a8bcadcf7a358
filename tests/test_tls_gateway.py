"""The gateway's port with TLS: everything that works without works with it, and who does not speak it, or not in time, holds up nobody."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import websocket

from app.errors import Unavailable
from app.remote import Session
from tests.certificates import Identities, make_identities
from tests.effects import open_gate
from tests.harness import ROOT, Process, Server, WsClient, wait_until
from tests.tokenfile import TokenFile, bearer

TOKEN = "t" * 43
PATIENCE = 2.0


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return make_identities(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(identities: Identities, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tokens = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    tokens.add(TOKEN, "anna")
    flags = ("--tasks", "tests.sample_tasks", "--workers", "1", "--handshake-timeout", str(PATIENCE), "--max-unsent", "256KiB")
    running = Server(*flags, "--ws-cert", str(identities.server), "--tokens", str(tokens.path))
    pid = running.gateway_pid()
    yield running
    assert running.gateway_pid() == pid
    running.clean()


@pytest.fixture
def context(identities: Identities) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(identities.ca))


def where(server: Server) -> tuple[str, int]:
    host, port = server.ws_url.removeprefix("wss://").removesuffix("/ws").split(":")
    return host, int(port)


def client(server: Server, context: ssl.SSLContext) -> WsClient:
    return WsClient(server.ws_url, sslopt={"context": context}, header=bearer(TOKEN))


def ask(server: Server, context: ssl.SSLContext, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPSConnection(*where(server), timeout=10, context=context)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_it_says_so(server: Server) -> None:
    assert server.ws_url.startswith("wss://127.0.0.1:")
    assert server.http_url.startswith("https://127.0.0.1:")


def test_tasks_and_the_page_are_there(server: Server, context: ssl.SSLContext) -> None:
    with client(server, context) as one:
        one.send({"id": "sealed", "function": "echo", "args": {"text": "x" * 60_000}})
        assert len(one.final("sealed")["result"]["text"]) == 60_000
        for number in range(200):
            one.send({"ping": number})
        assert [one.receive()["pong"] for _ in range(200)] == list(range(200))
    assert ask(server, context, "/").status == 200
    assert ask(server, context, "/tasks", **bearer(TOKEN)).status == 200
    assert ask(server, context, "/tasks").status == 401


def test_what_comes_with_the_handshake_is_not_lost(server: Server, context: ssl.SSLContext) -> None:
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
    head = f"GET /ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    ping = b'\x81\x8a\x00\x00\x00\x00{"ping":1}'
    with context.wrap_socket(socket.create_connection(where(server), 10), server_hostname="127.0.0.1") as sock:
        sock.sendall(head.encode() + ping * 2000)  # in one go, more than a record
        data = b""
        while data.count(b'{"pong":1}') < 2000:
            more = sock.recv(65536)
            assert more
            data += more


def test_browsers_are_told_never_to_come_without(server: Server, context: ssl.SSLContext) -> None:
    for path in ("/", "/functions"):
        assert ask(server, context, path).headers["Strict-Transport-Security"] == "max-age=31536000"
    assert ask(server, context, "/", Host=f"localhost:{where(server)[1]}").headers["Strict-Transport-Security"] is None


def test_only_pages_that_came_by_tls_are_of_this_server(server: Server, context: ssl.SSLContext) -> None:
    _, port = where(server)
    for origin, status in ((f"https://127.0.0.1:{port}", 200), (f"https://localhost:{port}", 200), (f"http://127.0.0.1:{port}", 403)):
        assert ask(server, context, "/tasks", Origin=origin, **bearer(TOKEN)).status == status


def test_a_request_that_waits_notices_that_nobody_does_any_more(server: Server, context: ssl.SSLContext, gate: Path) -> None:
    with client(server, context) as one:
        one.send({"id": "held", "function": "gated", "args": [str(gate)]})
        one.until(lambda message: message.get("event") == "started")
        before = _descriptors(server)
        with ExitStack() as held:
            for _ in range(10):
                connection = http.client.HTTPSConnection(*where(server), timeout=10, context=context)
                held.callback(connection.close)
                connection.request("GET", "/tasks/held", headers={"Prefer": "wait=60", **bearer(TOKEN)})
            wait_until(lambda: _descriptors(server) >= before + 10)
        wait_until(lambda: _descriptors(server) <= before)
        open_gate(gate)
        assert one.final("held")["event"] == "succeeded"


def _descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.gateway_pid()}/fd"))


def test_a_slow_reader_is_held_to_its_bound_and_gets_every_byte(server: Server, context: ssl.SSLContext) -> None:
    with client(server, context) as one:
        for number in range(30):
            one.send({"id": f"slow-{number}", "function": "echo", "args": {"text": "y" * 60_000}, "events": "final"})
        time.sleep(0.5)  # nothing is read meanwhile
        ends = [one.until(lambda message: message.get("event") == "succeeded") for _ in range(30)]
    assert {len(end["result"]["text"]) for end in ends} == {60_000}


@pytest.mark.parametrize(
    "said",
    [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 20, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(300)],
)
def test_who_speaks_no_tls_is_cut_off_and_holds_nobody_up(server: Server, context: ssl.SSLContext, said: bytes) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(where(server), 10)) for _ in range(20)]
        for sock in socks:
            sock.sendall(said)
        began = time.monotonic()
        assert ask(server, context, "/").status == 200
        assert time.monotonic() - began < PATIENCE
        for sock in socks:
            sock.settimeout(PATIENCE + 10)
            try:
                while sock.recv(4096):  # an alert, perhaps
                    pass
            except ConnectionResetError:
                continue
    assert "Traceback" not in server.log()


def test_old_versions_are_not_spoken(server: Server, identities: Identities) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(str(identities.ca))
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(where(server), 10) as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(sock, server_hostname="127.0.0.1")


def test_clients_of_ours_check_the_certificate(server: Server, identities: Identities) -> None:
    with Session(server.ws_url, token=TOKEN, ca=str(identities.ca)) as session:
        assert session.call("echo", {"n": 1}, timeout=10) == {"n": 1}
    with pytest.raises(Unavailable, match="certificate verify failed"):
        Session(server.ws_url, token=TOKEN)


def test_commands_do_too(server: Server, identities: Identities, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    flags = ["--ws", "{}:{}".format(*where(server)), "--ws-ca", str(identities.ca), "--token-file", str(token)]
    result = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "call", *flags, "echo", "n=1"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (json.loads(result.stdout), result.returncode) == ({"n": 1}, 0), result.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--ws-key", "{server}"), "--ws-key is given without --ws-cert"),
        (("--ws-cert", "{ca}"), "--ws-cert: "),
        (("--ws-cert", "/nowhere"), "No such file"),
    ],
)
def test_files_that_cannot_be_used_end_the_start_with_one_line(identities: Identities, flags: tuple[str, ...], said: str) -> None:
    ours = [flag.format(server=identities.server, ca=identities.ca) for flag in flags]
    process = Process([sys.executable, str(ROOT / "run.py"), "--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--workers", "1", *ours])
    try:
        assert process.wait() == 2
        assert said in process.log()
        assert "Traceback" not in process.log()
    finally:
        process.clean()


def test_connections_end_with_a_goodbye_when_it_leaves(identities: Identities) -> None:
    server = Server("--workers", "1", "--ws-cert", str(identities.server))
    context = ssl.create_default_context(cafile=str(identities.ca))
    one = WsClient(server.ws_url, sslopt={"context": context})
    assert one.ask({"ping": 1}) == {"pong": 1}
    server.send_signal(signal.SIGTERM)
    opcode, data = one.socket.recv_data()
    assert (opcode, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1001).to_bytes(2, "big"))
    one.socket.shutdown()
    assert server.wait() == 0
    server.clean()
