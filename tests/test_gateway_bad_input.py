"""Bad input over a WebSocket: a clear error for each, the connection goes on, the same processes stay, and nothing is lost."""

import json
import random
import socket
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import check_story, effects, open_gate, said_of
from tests.harness import Server, WsClient, wait_until
from tests.rawclient import RawClient, client_frame, text_frame

ARABIC = "مرحباً بالعالم — إشعار رقم ٤٢"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    running = Server("--tasks", "tests.sample_tasks", "--workers", "2")
    yield running
    for failure in ("message-failed", "turn-failed", "report-failed", "line-failed", "connection-failed", "handler-failed"):
        assert failure not in running.log()
    running.clean()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The server that all tests here share, with the same processes before and after each."""
    before = shared_server.gateway_pid(), shared_server.worker_pids()
    yield shared_server
    assert (shared_server.gateway_pid(), shared_server.worker_pids()) == before


@pytest.fixture
def client(server: Server) -> Iterator[WsClient]:
    with WsClient(server.ws_url) as connected:
        yield connected


def port_of(server: Server) -> int:
    return int(server.http_url.rstrip("/").rsplit(":", 1)[1])


def refusal(client: WsClient, message: Any) -> Any:
    """What a message is refused with; the connection must go on after it."""
    answer = client.ask(message)
    assert "event" not in answer
    assert answer["error"]["message"]
    assert client.ask({"ping": "still here"}) == {"pong": "still here"}
    return answer


# What is no message.

NO_JSON = (
    *(
        "",
        " ",
        "{",
        "}",
        "[",
        "nul",
        "'",
        "{'function': 'echo'}",
        '{"function": "echo"',
        '{"function": "echo"} {}',
        '{"function": "echo",}',
    ),
    *(
        "\ufeff{}",
        '{"function": "ec\nho"}',
        '{"function": echo}',
        '{"a": 01}',
        '{"a": .5}',
        '{"a": 1.}',
        '{"a": +1}',
        '{"a": "\\x41"}',
        "-",
        "tru",
    ),
    *('{"ping": NaN}', '{"ping": Infinity}', '{"ping": -Infinity}', '{"ping": 1e999}', '{"ping": -1e999}', '{"ping": ' + "9" * 5000 + "}"),
    *('{"ping": "\\ud800"}', '{"ping": "\\udc00\\ud800"}', '{"\\udfff": 1}', '{"ping": "\\u12"}'),
    *('{"ping": ' + "[" * 32 + "]" * 32 + "}", '{"a":' * 33 + "1" + "}" * 33, "[" * 30_000),
    *("[]", "1", '"function"', "null", "true", "[{}]", "{}", '{"what": 1}'),
)


@pytest.mark.parametrize("text", NO_JSON, ids=lambda text: text[:24] or "empty")
def test_what_is_no_request_is_a_bad_request(client: WsClient, text: str) -> None:
    answer = refusal(client, text)
    assert answer["error"]["code"] == "bad_request"
    assert "id" not in answer


def test_32_levels_are_taken(client: WsClient) -> None:
    deep = json.loads("[" * 30 + "]" * 30)
    client.send({"id": uuid.uuid4().hex, "function": "echo", "args": {"deep": deep}, "events": "final"})
    assert client.receive()["result"] == {"deep": deep}
    assert client.ask('{"ping": ' + "[" * 31 + "]" * 31 + "}") == {"pong": json.loads("[" * 31 + "]" * 31)}


def each(key: str, *values: Any, **others: Any) -> list[dict[str, Any]]:
    """A message for each of the values of one key."""
    return [{**others, key: value} for value in values]


WRONG = [
    *each("function", 1, None, True, [], {}, ["echo"]),
    *each("args", 1, "text", True, 1.5, function="echo"),
    *each("events", "some", "", 1, None, ["all"], True, function="echo"),
    *each("priority", "1", 1.5, True, 1001, -1001, None, 10**30, function="echo"),
    *each("delay", -1, "1", True, None, 1e300, [1], function="echo"),
    *each("on_disconnect", "stop", 1, None, False, function="echo"),
    *({"function": "echo", extra: 1} for extra in ("attempt", "seq", "arguments", "", "__class__", "ترتيب")),
    *each("attach", -1, "0", True, None, 1.0, 2**60, []),
    *each("cancel", False, 1, "true", None, {}),
    *each("list", 1, None, [], True, {"limit": 0}, {"limit": 1001}, {"limit": "1"}, {"limit": True}, {"limits": 1}),
]


@pytest.mark.parametrize("message", WRONG, ids=lambda message: json.dumps(message)[:60])
def test_a_wrong_type_is_a_bad_request_and_carries_the_id(client: WsClient, message: dict[str, Any]) -> None:
    answer = refusal(client, {"id": "mine", **message})
    assert (answer["id"], answer["error"]["code"]) == ("mine", "bad_request")


@pytest.mark.parametrize("task_id", [1, None, True, "", "a" * 65, "a b", "ü", "a\n", "../x", [], {}, ARABIC], ids=repr)
@pytest.mark.parametrize("message", [{"function": "echo"}, {"attach": 0}, {"cancel": True}], ids=lambda message: next(iter(message)))
def test_an_id_that_is_none_is_a_bad_request(client: WsClient, message: dict[str, Any], task_id: Any) -> None:
    answer = refusal(client, {"id": task_id, **message})
    assert answer["error"]["code"] == "bad_request"
    assert "id" not in answer


@pytest.mark.parametrize("request_", [{"attach": 0}, {"cancel": True}])
def test_attach_and_cancel_want_an_id(client: WsClient, request_: dict[str, Any]) -> None:
    assert refusal(client, request_)["error"]["code"] == "bad_request"


NAMES = (
    "",
    "echo ",
    "Echo",
    "os.system",
    "__import__",
    "workers.tasks.demo.echo",
    "echo.__call__",
    "eval",
    "../echo",
    "a" * 10_000,
    ARABIC,
)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20] or "empty")
def test_an_unknown_function_is_refused_by_its_name(client: WsClient, name: str) -> None:
    answer = refusal(client, {"id": "mine", "function": name})
    assert (answer["id"], answer["error"]["code"]) == ("mine", "unknown_function")
    assert name[:50] in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 300
    assert "id" not in refusal(client, {"function": name})


ARGUMENTS: tuple[tuple[str, Any, str], ...] = (
    ("sleep", {}, "seconds"),
    ("sleep", {"seconds": "1"}, "seconds"),
    ("sleep", {"seconds": True}, "seconds"),
    ("sleep", {"seconds": 0, "extra": 1}, "extra"),
    ("sleep", [0, 1], ""),
    ("send_mail", {"from": "a@x.org", "to": "b@y.org"}, "contents"),
    ("send_mail", {"from": "a@x.org\r\nBcc: c@z.org", "to": "b@y.org", "contents": ""}, "from"),
    ("send_mail", {"from": "a@x.org", "to": "b@y.org", "contents": "", "subject": "a\nb"}, "subject"),
    ("send_mails", {"from": "a@x.org", "to": ["b@y.org", 1], "subject": "", "contents": ""}, "to"),
)


@pytest.mark.parametrize(("function", "args", "parameter"), ARGUMENTS)
def test_wrong_arguments_end_the_task_and_name_the_parameter(client: WsClient, function: str, args: Any, parameter: str) -> None:
    client.send({"id": "mine" + uuid.uuid4().hex, "function": function, "args": args, "events": "final"})
    final = client.receive()
    assert (final["event"], final["error"]["code"]) == ("failed", "bad_arguments")
    assert parameter in json.dumps(final["error"])


# Limits and fuzz.


def test_a_message_at_the_limit_is_taken_and_one_past_it_ends_that_connection_alone(server: Server, client: WsClient) -> None:
    frame = '{"id":"%s","function":"echo","events":"final","args":{"x":"%s"}}'
    room = 64 * 1024 - len(frame % ("f" * 32, ""))
    assert len(client.ask(frame % (uuid.uuid4().hex, "x" * room))["result"]["x"]) == room
    with RawClient(port_of(server)) as raw:
        raw.send(text_frame(frame % (uuid.uuid4().hex, "x" * (room + 1))))
        assert (raw.drain() or (0, ""))[0] == 1009
    with RawClient(port_of(server)) as raw:
        raw.send(client_frame(2, b'{"ping":1}'))
        assert (raw.drain() or (0, ""))[0] == 1003
    assert client.ask({"ping": 1}) == {"pong": 1}


def test_of_two_equal_keys_the_last_counts(client: WsClient) -> None:
    assert client.ask('{"ping": 1, "ping": 2}') == {"pong": 2}


@pytest.mark.parametrize("seed", range(4))
def test_mangled_requests_never_break_a_connection(client: WsClient, seed: int) -> None:
    """Each is answered or not, as it may be; the ping behind it always is, and nothing is called our own fault."""
    chance = random.Random(seed)
    whole = [
        '{"id":"m","function":"echo","args":{"a":[1,true,null,"\\u0627"]},"events":"final","delay":0}',
        '{"id":"m","attach":0}',
        '{"list":{"limit":3}}',
    ]
    for number in range(150):
        text = list(chance.choice(whole))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(text))
            text[place : place + chance.randint(0, 3)] = chance.choice(['"', "{", "]", ",", ":", "\\", "1e", "m", "\0", "é", ""])
        client.send("".join(text))
        client.send({"ping": number})
        client.until(lambda message: message.get("pong") == number)  # noqa: B023 - used up at once
    assert not [message for message in client.messages if message.get("error", {}).get("code") == "internal"]


# Clients that vanish.


def vanish(sock: socket.socket) -> None:
    """Reset the connection: no close frame, no end of the stream."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_clients_that_vanish_in_mid_task_lose_nothing(server: Server, client: WsClient, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    ids = [f"v{number}-{uuid.uuid4().hex}" for number in range(20)]
    for number, task_id in enumerate(ids):
        raw = RawClient(port_of(server))
        raw.send(text_frame(json.dumps({"id": task_id, "function": "gated", "args": {"gate": str(gate)}})))
        assert '"accepted"' in str(raw.message())
        raw.send(text_frame('{"id":"never-whole","function"')[: number % 9])
        if number % 2:
            vanish(raw.socket)
        else:
            raw.socket.close()
    wait_until(lambda: all(effects(server, task_id) for task_id in ids))
    for task_id in ids:
        client.send({"id": task_id, "attach": 0})
    assert client.ask({"ping": 1}, 10)
    open_gate(gate)
    while len([message for message in client.messages if message.get("event") == "succeeded"]) < len(ids):
        client.receive()
    for task_id in ids:
        check_story(said_of(client.messages, task_id))
        assert len(effects(server, task_id)) == 1
