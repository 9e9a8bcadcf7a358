"""Whatever is sent to the Text port: a clear refusal, the connection goes on, nothing else is lost, and the processes are the same."""

import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.wire import is_foreign
from tests.harness import Server, TextClient

LIMIT = 1 << 20

BAD: dict[str, tuple[bytes, str]] = {
    "an empty line": (b"", "bad_request"),
    "white space": (b"  \t ", "bad_request"),
    "no JSON": (b"hello", "bad_request"),
    "half of it": (b'{"function":"echo","args":{', "bad_request"),
    "two of them": (b'{"function":"echo"}{"function":"echo"}', "bad_request"),
    "an array": (b'["function","echo"]', "bad_request"),
    "a string": (b'"echo"', "bad_request"),
    "a number": (b"5", "bad_request"),
    "null": (b"null", "bad_request"),
    "an empty object": (b"{}", "bad_request"),
    "what gateways acknowledge": (b'{"ack":1}', "bad_request"),
    "what gateways answer": (b'{"leaving":true}', "bad_request"),
    "an unknown request": (b'{"func":"echo"}', "bad_request"),
    "a number for the function": (b'{"function":1}', "bad_request"),
    "null for the function": (b'{"function":null}', "bad_request"),
    "a string for args": (b'{"function":"echo","args":"x"}', "bad_request"),
    "a number for args": (b'{"function":"echo","args":0}', "bad_request"),
    "false for args": (b'{"function":"echo","args":false}', "bad_request"),
    "a key that nobody knows": (b'{"function":"echo","argz":{}}', "bad_request"),
    "nested 33 deep": (b'{"function":"echo","args":{"a":' + b"[" * 31 + b"]" * 31 + b"}}", "bad_request"),
    "nested 100,000 deep": (b'{"function":"echo","args":{"a":' + b"[" * 100_000, "bad_request"),
    "NaN": (b'{"function":"echo","args":{"a":NaN}}', "bad_request"),
    "Infinity": (b'{"function":"echo","args":{"a":-Infinity}}', "bad_request"),
    "1e999": (b'{"function":"echo","args":{"a":1e999}}', "bad_request"),
    "a lone surrogate": (b'{"function":"echo","args":{"a":"\\ud800"}}', "bad_request"),
    "a lone surrogate for a name": (b'{"function":"\\udfff"}', "bad_request"),
    "a surrogate in UTF-8": (b'{"function":"echo","args":{"a":"\xed\xa0\x80"}}', "bad_request"),
    "bad UTF-8": (b'{"function":"echo","args":{"a":"\xff"}}', "bad_request"),
    "UTF-16": ('{"function":"echo"}'.encode("utf-16-le"), "bad_request"),
    "a byte order mark": (b'\xef\xbb\xbf{"function":"echo"}', "bad_request"),
    "a raw control character": (b'{"function":"echo","args":{"a":"\x01"}}', "bad_request"),
    "NUL": (b"\x00" * 100, "bad_request"),
    "an integer of 5,000 digits": (b'{"function":"echo","args":{"a":' + b"7" * 5000 + b"}}", "bad_request"),
    "HTTP": (b"GET / HTTP/1.1", "bad_request"),
    "an unknown function": (b'{"function":"no_such"}', "unknown_function"),
    "a function with a path": (b'{"function":"os.system","args":["true"]}', "unknown_function"),
    "a function with a dunder": (b'{"function":"__import__","args":["os"]}', "unknown_function"),
    "an empty name": (b'{"function":""}', "unknown_function"),
    "a long name": (b'{"function":"' + b"x" * 100_000 + b'"}', "unknown_function"),
    "a wrong argument": (b'{"function":"sleep","args":{"second":1}}', "bad_arguments"),
    "a missing argument": (b'{"function":"sleep"}', "bad_arguments"),
    "one argument too many": (b'{"function":"sleep","args":[1,2]}', "bad_arguments"),
    "a wrong type": (b'{"function":"sleep","args":{"seconds":"1"}}', "bad_arguments"),
    "true for a number": (b'{"function":"sleep","args":{"seconds":true}}', "bad_arguments"),
    "an address with a line ending": (
        b'{"function":"send_mail","args":{"from":"a@x.org\\nBcc: e@x.org","to":"b@x.org","contents":""}}',
        "bad_arguments",
    ),
    "a delay": (b'{"function":"echo","delay":5}', "bad_request"),
    "a delay in the full form": (b'{"id":"a","function":"echo","delay":5}', "bad_request"),
    "an id with a space": (b'{"id":"a b","function":"echo"}', "bad_request"),
    "a number for an id": (b'{"id":5,"function":"echo"}', "bad_request"),
    "an id of 65 characters": (b'{"id":"' + b"x" * 65 + b'","function":"echo"}', "bad_request"),
    "what only a gateway says": (b'{"id":"a","function":"echo","attempt":1,"seq":1}', "bad_request"),
    "an attach": (b'{"id":"a","attach":0}', "bad_request"),
    "a list": (b'{"list":{}}', "bad_request"),
    "a cancel without an id": (b'{"cancel":true}', "bad_request"),
    "a cancel of nobody": (b'{"id":"nobody","cancel":true}', "unknown_task"),
    "a recall by a stranger": (b'{"id":"nobody","recall":true}', "unknown_task"),
    "a claim that is none": (b'{"claim":5,"journal":"a"}', "bad_request"),
    "a claim of nothing readable": (b'{"claim":[["a",1]],"journal":"a"}', "bad_request"),
    "a claim without a journal": (b'{"claim":[]}', "bad_request"),
    "a claim for a journal that is none": (b'{"claim":[],"journal":"a b"}', "bad_request"),
}


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    """Checked at the end: what came in has ended no process, and nothing of ours was surprised."""
    running = Server("worker", "--tasks", "tests.worker_tasks")
    before = running.tree()
    yield running
    assert running.tree() == before
    log = running.log()
    running.clean()
    assert "Traceback" not in log
    assert "line-failed" not in log


@pytest.fixture
def client(worker: Server) -> Iterator[TextClient]:
    with TextClient(worker.text_address) as one:
        yield one


@pytest.mark.parametrize("case", BAD)
def test_a_clear_refusal_and_the_connection_goes_on(client: TextClient, case: str) -> None:
    line, code = BAD[case]
    client.send(b'{"function":"sleep","args":[0.05]}\n' + line + b'\n{"function":"echo","args":{"after":1}}\n')
    answers = [client.receive() for _ in range(3)]
    (refusal,) = [answer for answer in answers if isinstance(answer, dict) and "error" in answer]
    assert refusal["error"]["code"] == code
    assert 10 < len(refusal["error"]["message"]) < 400
    assert "event" not in refusal
    answers.remove(refusal)
    assert answers == [0.05, {"after": 1}]


def test_a_refusal_names_the_id_where_there_is_one(client: TextClient) -> None:
    for line, task_id in (
        (b'{"id":"x1","function":"no_such"}', "x1"),
        (b'{"id":"x2","function":"sleep","args":{}}', "x2"),
        (b'{"id":"x3","function":5}', "x3"),
        (b'{"id":"x4","delay":1,"function":"echo"}', "x4"),
        (b'{"id":"x 5","function":"echo"}', None),
    ):
        client.send(line + b"\n")
        assert client.receive().get("id") == task_id


def test_what_is_wrong_with_an_argument_is_told_with_its_name(client: TextClient) -> None:
    error = client.ask({"function": "sleep", "args": {"seconds": [1]}})["error"]
    assert error["parameter"] == "seconds"
    assert "seconds" in error["message"]


@pytest.mark.parametrize("number", [10**30, -(2**63) - 1, 2**64, 10**4000, 12345678901234567890123, 0.1, 1e308, 5e-324])
def test_numbers_are_exact(client: TextClient, number: float) -> None:
    client.send(b'{"function":"echo","args":{"n":%b}}\n' % json.dumps(number).encode())
    assert client.receive() == {"n": number}


def test_a_line_of_just_the_limit_passes(client: TextClient) -> None:
    head, tail = b'{"function":"echo","args":{"a":"', b'"}}'
    for ending in (b"\n", b"\r\n"):
        text = b"x" * (LIMIT - len(head) - len(tail))
        client.send(head + text + tail + ending)
        assert client.receive() == {"a": text.decode()}


@pytest.mark.parametrize("size", [LIMIT + 1, 5 << 20])
def test_the_sender_of_a_line_too_long_is_told_so_and_then_let_go(client: TextClient, size: int) -> None:
    """He is still sending when it is refused: the answer must not be lost in a reset."""
    client.send(b'{"function":"sleep","args":[0.2]}\n')
    client.send(b'{"function":"echo","args":{"a":"' + b"x" * size + b'"}}\n{"function":"echo"}\n')
    assert client.receive() == 0.2
    error = client.receive()["error"]
    assert (error["code"], str(LIMIT) in error["message"]) == ("too_large", True)
    assert client.receive_line() == b""


def test_a_line_without_end_is_refused_too(worker: Server, client: TextClient) -> None:
    client.socket.settimeout(10)
    stop = threading.Event()

    def pour() -> None:
        while not stop.is_set():
            try:
                client.socket.sendall(b"x" * 65536)
            except OSError:
                return

    pouring = threading.Thread(target=pour)
    pouring.start()
    assert client.receive()["error"]["code"] == "too_large"
    stop.set()
    pouring.join(10)
    assert not pouring.is_alive()


def test_of_many_who_pour_nobody_else_feels_anything(worker: Server) -> None:
    pouring = [TextClient(worker.text_address) for _ in range(5)]
    for one in pouring:
        one.send(b"[" * 900_000)
    slowest = 0.0
    with TextClient(worker.text_address) as client:
        for _ in range(100):
            began = time.monotonic()
            assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
            slowest = max(slowest, time.monotonic() - began)
    for one in pouring:
        one.send(b"\n")
        assert one.receive()["error"]["code"] == "bad_request"
        one.close()
    assert slowest < 1


def test_connections_that_say_nothing_cost_nobody_anything(worker: Server) -> None:
    silent = [TextClient(worker.text_address) for _ in range(200)]
    with TextClient(worker.text_address) as client:
        assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
    for one in silent:
        one.close()
    assert len(os.listdir(f"/proc/{worker.pid}/fd")) > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
REQUESTS = st.dictionaries(
    st.sampled_from(
        ("id", "function", "args", "events", "priority", "delay", "cancel", "describe", "ack", "recall", "leaving", "on_disconnect", "ping")
    ),
    JSON | st.sampled_from(("a", "echo", "final", {}, [0], 1)),
    max_size=5,
)


LINES = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ")).filter(lambda line: not is_foreign(line))


@given(st.lists(LINES | REQUESTS, min_size=1, max_size=10))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_lines_at_all_are_answered_and_a_sane_one_after_them_too(worker: Server, lines: list[Any]) -> None:
    with TextClient(worker.text_address) as client:
        for line in lines:
            client.send((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        client.send({"function": "echo", "args": {"sane": True}})
        client.half_close()
        answers = [json.loads(line) for line in iter(client.receive_line, b"")]
    assert {"sane": True} in answers
    assert len(answers) >= len(lines) + 1 - sum(isinstance(line, dict) and "ack" in line for line in lines)
