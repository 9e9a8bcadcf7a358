"""Nothing that is given to a server is found in its logs: not the arguments of tasks that go well or badly, nor tokens, secrets, mails,
headers or requests that are none. Each has a word in it that is looked for wherever anybody may look."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import websocket

from tests.harness import Server, TextClient, WsClient, wait_until
from tests.httpapi import HttpClient, port_of
from tests.rawclient import RawClient, client_frame, request, text_frame
from tests.tokenfile import TokenFile, bearer

CANARY = "kanarienvogel"
GOOD = f"{CANARY}-token-" + "g" * 43
TASKS = (
    "raises", "raises_in_thread", "raises_in_process", "crashes_in_process", "tries_again", "spins", "talks", "returns", "returns_nonsense",
)  # fmt: skip
FINAL = ("succeeded", "failed", "timed_out", "cancelled", "interrupted")


def word(what: str) -> str:
    """A secret that tells where it came from, if it is found."""
    return f"{CANARY}-{what}-\x1b[31m"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("canary")
    tokens = TokenFile(home / "tokens.toml")
    tokens.add(GOOD, "anna")
    flags = ("--tasks", "tests.wordy_tasks", "--workers", "2", "--auth", "tests.sample_auth", "--tokens", str(tokens.path))
    env = {
        "HANDOFF_SECRET": f"{CANARY}-secret-" + "s" * 40,
        "HANDOFF_TOKEN": GOOD,
        "HANDOFF_SMTP_URL": f"smtp://u:{CANARY}-mail@127.0.0.1:1",
    }
    running = Server(*flags, "--rate-failures", "0", "--handler", "tests.gateway_handlers", env=env)
    yield running
    running.clean()


@pytest.fixture(scope="module")
def used(server: Server) -> Server:
    """A server to which all of it has been done."""
    with WsClient(
        server.ws_url, header=[f"Authorization: Bearer {GOOD}", f"Cookie: session={CANARY}-cookie", f"X-Own: {CANARY}-header"]
    ) as client:
        run_tasks(client)
        say_nonsense(client)
    knock(server)
    ask_over_http(server)
    speak_raw(server)
    with WsClient(server.ws_url, header=bearer(GOOD)) as client:
        client.send({"id": "crash", "function": "crashes", "args": {"text": word("crash")}})
        client.final("crash", 20)
    wait_until(lambda: "crashes" in server.log())
    return server


def run_tasks(client: WsClient) -> None:
    for name in TASKS:
        client.send({"id": name, "function": name, "args": {"text": word(f"argument-of-{name}")}})
    client.send({"id": "bad", "function": "returns", "args": {word("name"): word("value")}})
    mail = {"from": "a@x.org", "to": f"{CANARY}-to@x.org", "subject": f"{CANARY}-subject", "contents": f"{CANARY}-contents"}
    client.send({"id": "mail", "function": "send_mail", "args": mail})
    left = {*TASKS, "bad"}
    while left:
        message = client.receive(30)
        if message.get("event") in FINAL:
            left -= {message["id"]}
    client.send({"id": "mail", "cancel": True})


def say_nonsense(client: WsClient) -> None:
    for text in (
        json.dumps({"function": word("function")}),
        json.dumps({"function": "returns", word("key"): 1}),
        json.dumps({"id": word("id"), "function": "returns"}),
        json.dumps({word("request"): word("request")}),
        '{"function": "returns", "args": {"text": "' + CANARY + "-broken",
        json.dumps([word("list")]),
        json.dumps({"function": "returns", "args": word("args")}),
        json.dumps({"id": "x", "attach": word("attach")}),
        json.dumps({"list": {"function": word("list")}}),
        '{"ping": "' + CANARY + '-ping"}',
        json.dumps({"token": word("token")[:-5]}),
    ):
        client.send(text)
        assert client.until(lambda message: "id" not in message or message["id"] in ("x", None) or "error" in message, 10)


def knock(server: Server) -> None:
    for token in ("", f"breaks-{CANARY}-hook", f"wrong-{CANARY}-hook", f"{CANARY}-unknown", "x" * 5000):
        with WsClient(f"{server.ws_url}?token={CANARY}-query&access_token={GOOD}") as client, suppress(websocket.WebSocketException):
            client.send({"token": token})
            client.receive()
            client.socket.shutdown()
    for header in (f"Bearer {CANARY}-header", f"Basic {CANARY}", f"Bearer breaks-{CANARY}", f"{CANARY} {CANARY}"):
        with RawClient(port_of(server), upgrade=False) as raw:
            raw.send(request(Authorization=header, Origin=f"https://{CANARY}.example", User_Agent=CANARY))
            raw.response()


def ask_over_http(server: Server) -> None:
    asked: list[tuple[str, str, Any, dict[str, str]]] = [
        ("POST", "/tasks", {"function": "raises", "args": {"text": word("http")}}, bearer(GOOD) | {"Prefer": "wait=10"}),
        ("POST", "/tasks", {"function": "returns", "args": {word("http-name"): 1}}, bearer(GOOD)),
        ("POST", "/tasks", b'{"' + CANARY.encode(), bearer(GOOD) | {"Idempotency-Key": CANARY}),
        ("GET", f"/tasks/{CANARY}", None, bearer(GOOD)),
        ("GET", f"/tasks?{CANARY}={CANARY}", None, bearer(GOOD)),
        ("GET", f"/{CANARY}?token={GOOD}", None, {"Cookie": CANARY}),
        ("GET", "/tasks", None, bearer(f"breaks-{CANARY}-http")),
        ("GET", "/tasks", None, bearer(GOOD) | {"Last-Event-ID": CANARY, "Origin": f"https://{CANARY}.example"}),
        (CANARY.upper(), "/tasks", None, bearer(GOOD)),
    ]
    for method, path, body, headers in asked:
        with HttpClient(server) as http:
            http.ask(method, path, body, **headers)


def speak_raw(server: Server) -> None:
    """What is no protocol, on both ports."""
    for data in (
        f"{CANARY}\r\n\r\n",
        f"GET /{CANARY} HTTP/9\r\n{CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {CANARY}\r\nX: \0{CANARY}\r\n\r\n",
    ):
        with RawClient(port_of(server), upgrade=False) as raw:
            raw.send(data.encode())
            raw.response()
    key = f"Authorization: Bearer {GOOD}"
    for frame in (
        text_frame(CANARY * 20_000),
        client_frame(3, CANARY.encode()),
        client_frame(8, b"\x03\xe8" + CANARY.encode()),
        client_frame(1, b"\xff" + CANARY.encode()),
    ):
        with RawClient(port_of(server), upgrade=False) as raw:
            raw.send(request("/ws", Authorization=key.partition(": ")[2]))
            raw.head()
            raw.send(frame)
            raw.drain()
    with RawClient(port_of(server), upgrade=False) as raw:  # one's own handler, which raises
        raw.send(request("/", Authorization=f"Bearer {GOOD}"))
        raw.head()
        raw.send(text_frame(f"fail {CANARY}"), text_frame(f"{CANARY} {CANARY}"), client_frame(8, b"\x03\xe8"))
        raw.drain()
    with TextClient(server.text_address) as line, suppress(OSError):
        line.send(f'{CANARY}\n{{"function": "{CANARY}"}}\n'.encode())
        line.receive_line()
    with socket.create_connection(server.text_address, 10) as sock:
        sock.sendall(CANARY.encode() * 1000)


def test_not_in_any_log(used: Server) -> None:
    found = [line for line in (used.log() + used.out()).splitlines() if CANARY in line.lower()]
    assert found == []


def test_not_in_the_run_directory(used: Server) -> None:
    files = [path for path in (used.data_dir / "run").rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files if CANARY.encode() in path.read_bytes()] == []


def test_not_in_any_command_line_or_name(used: Server) -> None:
    pids = used.tree()
    assert len(pids) >= 4
    for pid in pids:
        for name in ("cmdline", "comm"):
            with suppress(OSError):
                assert CANARY.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_neither_token_nor_secret_in_any_environment(used: Server) -> None:
    """A task can read what `/proc` shows of its own process, whatever was unset there."""
    for pid in used.tree():
        with suppress(OSError):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            assert GOOD.encode() not in environ
            assert f"{CANARY}-secret".encode() not in environ


def test_and_all_of_it_was_really_logged_about(used: Server) -> None:
    """So that the first test looked at something."""
    log = used.log()
    for event in (
        "task-failed",
        "process-died",
        "hub-blocked",
        "token-refused",
        "authentication-failed",
        "handler-failed",
        "task-lost",
    ):
        assert event in log, event
    assert "wordy_tasks.py" in log
    assert "Wordy" in log


def test_and_whoever_sent_it_was_told(used: Server) -> None:
    """What is kept from the log is in the answer."""
    with HttpClient(used) as http:
        view = http.ask("GET", "/tasks/raises", **bearer(GOOD)).body
    assert word("argument-of-raises") in view["error"]["message"]


FORGED = "20" + "26-01-01T00:00:00.000Z INFO gateway[1]: forged"
ODD = (
    f"\n{FORGED}",
    f"\r\n{FORGED}\r\n",
    f"\x1b[2J\x1b[1;1H{FORGED}",
    f"\u2028{FORGED}",
    f"\u202e{FORGED}\u202c",
    f"\x85{FORGED}",
    f"\x0b\x0c{FORGED}",
    "\u2066\u2069\x9b31m\x7f\x08",
)
ENTRY = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) (master|gateway|worker-\d+|isolated-\S+)\[\d+\]"
)


@pytest.mark.parametrize("odd", ODD)
def test_what_comes_from_outside_cannot_make_an_entry(used: Server, odd: str) -> None:
    with WsClient(used.ws_url, header=bearer(GOOD)) as client:
        client.send({"id": "odd", "function": odd})
        client.send({"id": odd, "function": "returns"})
        client.send({"id": f"odd-{ODD.index(odd)}", "function": "raises_oddly", "args": [odd]})
        assert odd in client.final(f"odd-{ODD.index(odd)}")["error"]["message"]
    latin = odd.encode("utf-8").decode("latin-1").replace("\r", "").replace("\n", "\r\n ")
    with RawClient(port_of(used), upgrade=False) as raw:
        raw.send(request(User_Agent=latin, Origin=latin, Authorization=f"Bearer {latin}"))
        raw.response()
    with RawClient(port_of(used), upgrade=False) as raw:
        raw.send(f"GET /{quote(odd)} HTTP/1.1\r\nHost: {latin}\r\n\r\n".encode("latin-1"))
        raw.response()


def test_every_line_of_the_log_is_one_entry_or_hangs_on_one(used: Server) -> None:
    """No line end, terminal code or mark of direction got through, whatever was sent."""
    log = used.log()
    assert [line for line in log.split("\n") if not line.isprintable()] == []
    beside = ("  | ", "Fatal Python error: ", "Current thread 0x", "Thread 0x", "  File ", "Extension modules: ")
    assert [line for line in log.split("\n") if line and not ENTRY.match(line) and not line.startswith(beside)] == []
    assert "raises_oddly" in log
    assert not any(
        line.startswith(FORGED[:4]) and "forged" in line and ENTRY.match(line) and "gateway[1]" in line[:60] for line in log.split("\n")
    )
