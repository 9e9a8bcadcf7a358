"""Bearer tokens over WebSocket, attacked: before one is shown, with wrong ones, with others' tasks, and after one is taken back."""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.effects import open_gate
from tests.harness import Server, WsClient, wait_until
from tests.httpapi import port_of
from tests.rawclient import RawClient, client_frame, request, text_frame
from tests.tokenfile import TokenFile, bearer

ANNA, BERT, OPERATOR = "anna-" + "a" * 40, "bert-" + "b" * 40, "root-" + "r" * 40
PATIENCE = 2.0


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    file.add(ANNA, "anna")
    file.add(BERT, "bert", functions='["echo", "mark*", "gated"]')
    file.add(OPERATOR, "root", operator="true")
    return file


@pytest.fixture(scope="module")
def server(tokens: TokenFile) -> Iterator[Server]:
    flags = ("--tasks", "tests.sample_tasks", "--workers", "1", "--handshake-timeout", str(PATIENCE), "--rate-failures", "0")
    running = Server(*flags, "--tokens", str(tokens.path))
    yield running
    running.clean()


def connect(server: Server, token: str) -> WsClient:
    """As a program does that can set headers."""
    return WsClient(server.ws_url, header=bearer(token))


def ended(client: WsClient, timeout: float = 5.0) -> tuple[int, str]:
    """The code and the reason of the close frame, whatever was said before."""
    client.socket.settimeout(timeout)
    while True:
        opcode, data = client.socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            client.socket.shutdown()
            return int.from_bytes(data[:2], "big"), data[2:].decode()


def code_of(message: Any) -> str:
    return str(message["error"]["code"])


MESSAGES: tuple[dict[str, Any], ...] = (
    {"function": "echo"},
    {"id": "x", "function": "echo"},
    {"describe": True},
    {"list": {}},
    {"watch": True},
    {"ping": 1},
    {"id": "x", "attach": 0},
    {"id": "x", "cancel": True},
    {"nonsense": 1},
)


def test_before_the_token_nothing_else_is_answered(server: Server) -> None:
    with WsClient(server.ws_url) as client:
        for message in MESSAGES:
            assert code_of(client.ask(message)) == "unauthorized", message
        assert client.ask({"token": ANNA}) == {"token": {"subject": "anna", "operator": False}}
        assert client.ask({"ping": 1}) == {"pong": 1}
        assert client.ask({"list": {}}) == {"list": []} or "list" in client.messages[-1]


@pytest.mark.parametrize("token", [ANNA, "nobody", None])
def test_nothing_is_done_along_with_a_token(server: Server, token: str | None) -> None:
    with WsClient(server.ws_url) as client:
        for message in MESSAGES:
            answer = client.ask({**message, "token": token})
            assert code_of(answer) == "bad_request", message
            assert code_of(client.ask({**message})) == "unauthorized", message


def test_a_token_and_what_follows_may_be_sent_at_once(server: Server) -> None:
    with WsClient(server.ws_url) as client:
        client.send({"token": ANNA})
        client.send({"id": "at-once", "function": "echo", "events": "final"})
        assert client.receive()["token"]["subject"] == "anna"
        assert client.final("at-once")["event"] == "succeeded"


@pytest.mark.parametrize(
    "token", ["", "nobody", ANNA[:-1], ANNA + "a", ANNA.upper(), 7, None, True, [ANNA], {"a": ANNA}, "x" * 10_000, "ä", "\x00"]
)
def test_a_token_that_is_none_ends_the_connection(server: Server, token: Any) -> None:
    with WsClient(server.ws_url) as client:
        client.send({"token": token})
        client.send({"describe": True})
        assert code_of(client.receive()) == "unauthorized"
        assert ended(client)[0] == 4401


def test_who_shows_none_in_time_is_sent_away_and_pings_do_not_help(server: Server) -> None:
    with RawClient(port_of(server)) as client:
        began = time.monotonic()
        client.send(client_frame(9, b"there?"), text_frame('{"ping": 1}'))
        assert client.drain() == (4401, f"no token came within {PATIENCE:g} s")
        assert PATIENCE - 0.1 < time.monotonic() - began < PATIENCE + 5


@pytest.mark.parametrize(
    "header",
    [
        "Bearer nobody",
        f"Bearer {ANNA} {ANNA}",
        f"Bearer {ANNA},{ANNA}",
        f"Basic {ANNA}",
        ANNA,
        "Bearer",
        f"bearer\t{ANNA}",
        "Bearer " + "x" * 5000,
    ],
)
def test_a_wrong_header_is_refused_with_the_handshake(server: Server, header: str) -> None:
    port = port_of(server)
    with RawClient(port, upgrade=False) as client:
        client.send(request(Authorization=header))
        status, headers, _ = client.response()
    assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="handoff"')


def test_a_token_in_the_query_is_not_looked_at(server: Server) -> None:
    for name in ("token", "access_token", "authorization", "bearer"):
        with WsClient(f"{server.ws_url}?{name}={ANNA}") as client:
            assert code_of(client.ask({"list": {}})) == "unauthorized"
    assert ANNA not in server.log()


def test_the_scheme_may_be_written_in_lower_case(server: Server) -> None:
    with WsClient(server.ws_url, header={"Authorization": f"bearer  {ANNA}"}) as client:
        assert client.ask({"ping": 1}) == {"pong": 1}


def test_only_what_is_allowed_can_be_called_or_seen(server: Server) -> None:
    with connect(server, BERT) as client:
        for name in ("countdown", "echo2", "Echo", "mar", "xmark", "no_such_thing", "gated_again", "echo\n", "mark\nx" * 3, "\x00"):
            expected = {"forbidden"} if not name.startswith("mark") else {"unknown_function"}
            assert code_of(client.ask({"id": "f", "function": name})) in expected, name
        client.send({"id": "f", "function": "echo", "events": "final"})
        assert client.final("f")["event"] == "succeeded"
        names = {entry["name"] for entry in client.ask({"describe": True})["describe"]["functions"]}
    assert names == {"echo", "mark", "gated"} | {name for name in names if name.startswith("mark")}


def test_owners_see_only_their_own(server: Server, gate: Path) -> None:
    with connect(server, ANNA) as anna, connect(server, BERT) as bert:
        anna.send({"id": "same", "function": "gated", "args": [str(gate), "anna"]})
        assert anna.until(lambda message: message.get("event") == "started")["id"] == "same"
        for message in ({"id": "same", "attach": 0}, {"id": "same", "cancel": True}):
            assert code_of(bert.ask(message)) == "unknown_task"
        assert "same" not in [entry["id"] for entry in bert.ask({"list": {"limit": 1000}})["list"]]
        bert.send({"id": "same", "function": "echo", "args": {"of": "bert"}})  # the same id is another's task, not a conflict
        assert bert.final("same")["result"] == {"of": "bert"}
        assert [entry["id"] for entry in anna.ask({"list": {"id": "same"}})["list"]] == ["same"]
        open_gate(gate)
        assert anna.final("same")["event"] == "succeeded"


def test_a_second_connection_of_the_same_subject_finds_its_tasks(server: Server) -> None:
    with connect(server, ANNA) as one:
        one.send({"id": "mine", "function": "echo", "events": "final"})
        one.final("mine")
    with connect(server, ANNA) as other:
        other.send({"id": "mine", "attach": 0})
        assert other.final("mine")["event"] == "succeeded"


def test_watching_shows_others_tasks_to_nobody_and_figures_to_operators_alone(server: Server, gate: Path) -> None:
    with connect(server, ANNA) as anna, connect(server, BERT) as bert, connect(server, OPERATOR) as root:
        for client in (bert, root):
            client.send({"watch": True})
        anna.send({"id": "watched-by-whom", "function": "gated", "args": [str(gate)]})
        anna.until(lambda message: message.get("event") == "started")
        seen = root.until(lambda message: any(worker.get("runs") for worker in message["watch"].get("workers", [])))["watch"]
        assert "figures" in seen
        bert.send({"id": "own", "function": "echo"})
        bert.until(lambda message: any(task["id"] == "own" for task in message.get("watch", {}).get("tasks", [])))
        bert.until(lambda message: "second" in message.get("watch", {}))
        told = [message["watch"] for message in bert.messages if "watch" in message]
        assert not any(key in push for push in told for key in ("figures", "workers"))
        assert not any(push.get("second") or push.get("history") for push in told)
        everything = json.dumps(bert.messages) + json.dumps(root.messages)
        assert "watched-by-whom" not in everything
        open_gate(gate)


def test_a_token_that_is_taken_back_ends_its_connections_within_seconds(server: Server, tokens: TokenFile) -> None:
    short = secrets.token_urlsafe(32)
    tokens.add(short, "short")
    wait_until(lambda: _opens(server, short))
    with connect(server, short) as client, WsClient(server.ws_url) as other, connect(server, ANNA) as anna:
        assert other.ask({"token": short})["token"]["subject"] == "short"
        tokens.remove(short)
        began = time.monotonic()
        assert ended(client) == (4401, "the token is not good any more")
        assert ended(other)[0] == 4401
        assert time.monotonic() - began < 5
        assert anna.ask({"ping": 1}) == {"pong": 1}
    assert not _opens(server, short)


def _opens(server: Server, token: str) -> bool:
    with RawClient(port_of(server), upgrade=False) as client:
        client.send(request(Authorization=f"Bearer {token}"))
        status, _, _ = client.head()
    assert status in (101, 401)
    return status == 101


def test_a_token_that_ends_takes_its_connections_along(server: Server, tokens: TokenFile) -> None:
    short = secrets.token_urlsafe(32)
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    tokens.add(short, "short", expires=end)
    wait_until(lambda: _opens(server, short))
    with connect(server, short) as client:
        assert ended(client, 8.0)[0] == 4401
    assert not _opens(server, short)
    tokens.remove(short)


def test_what_a_token_may_call_changes_under_a_connection(server: Server, tokens: TokenFile) -> None:
    short = secrets.token_urlsafe(32)
    tokens.add(short, "short", functions='["echo"]')
    wait_until(lambda: _opens(server, short))
    with connect(server, short) as client:
        assert code_of(client.ask({"function": "mark"})) == "forbidden"
        tokens.add(short, "short", functions='["mark"]')
        wait_until(lambda: "error" in client.ask({"function": "echo", "events": "final"}), 5.0)
        assert code_of(client.messages[-1]) == "forbidden"
        client.send({"id": "now", "function": "mark", "events": "final"})
        assert client.final("now")["event"] == "succeeded"
    tokens.remove(short)


def test_a_token_may_be_renewed_on_its_connection_but_not_become_anothers(server: Server, tokens: TokenFile) -> None:
    short = secrets.token_urlsafe(32)
    tokens.add(short, "anna")
    wait_until(lambda: _opens(server, short))
    with connect(server, short) as client:
        assert code_of(client.ask({"token": BERT})) == "bad_request"
        assert client.ask({"token": ANNA})["token"]["subject"] == "anna"
        tokens.remove(short)
        wait_until(lambda: not _opens(server, short), 5.0)
        assert client.ask({"ping": 1}) == {"pong": 1}


def test_a_file_that_cannot_be_used_changes_nothing_and_is_told(server: Server, tokens: TokenFile) -> None:
    before = tokens.path.read_text()
    with connect(server, ANNA) as client:
        tokens.path.write_text("[[token]]\nsubject = ")
        wait_until(lambda: server.log().count("tokens-unusable") == 1)
        tokens.path.write_text(before)
        tokens.path.chmod(0o644)
        wait_until(lambda: server.log().count("tokens-unusable") >= 2)
        assert "chmod 600" in server.log()
        assert client.ask({"ping": 1}) == {"pong": 1}
        assert _opens(server, BERT)
        tokens.path.chmod(0o600)


def test_without_tokens_one_that_is_shown_is_taken_and_means_nothing(start_server: Any) -> None:
    server = start_server("--workers", "1")
    with WsClient(server.ws_url) as client, connect(server, "whatever") as other:
        for one in (client, other):
            assert one.ask({"token": "whatever"}) == {"token": {"subject": None, "operator": True}}
            assert one.ask({"ping": 1}) == {"pong": 1}
