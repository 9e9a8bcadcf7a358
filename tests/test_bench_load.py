"""The load generator fails loudly: no refusal, failure, double answer, silence or lost connection passes for a finished task."""

import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench import build

ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
SUCCEEDED = '{"id": "%s", "event": "succeeded", "seq": 3, "attempt": 1, "result": {"text": "x"}}'

Replies = Callable[[str, int], list[str]]


def _frame(text: str) -> bytes:
    payload = text.encode()
    return (bytes([0x81, len(payload)]) if len(payload) < 126 else b"\x81\x7e" + len(payload).to_bytes(2)) + payload


def _texts(data: bytearray) -> Iterator[str]:
    """Whole client frames of 126 to 65,535 bytes, which is what the load generator's tasks are; they are taken off `data`."""
    while len(data) >= 8 and data[1] == 0xFE and len(data) >= 8 + int.from_bytes(data[2:4]):
        size, mask = int.from_bytes(data[2:4]), bytes(data[4:8])
        yield bytes(byte ^ mask[at & 3] for at, byte in enumerate(data[8 : 8 + size])).decode()
        del data[: 8 + size]


def _serve(listener: socket.socket, replies: Replies) -> None:
    with listener.accept()[0] as peer:
        received = bytearray()
        while not received.endswith(b"\r\n\r\n"):
            received += peer.recv(4096)
        peer.sendall(ANSWER)
        received.clear()
        count = 0
        while data := peer.recv(65536):
            received += data
            for text in _texts(received):
                count += 1
                answers = replies(json.loads(text)["id"], count)
                if not answers:
                    return
                peer.sendall(b"".join(_frame(answer) for answer in answers))


@contextmanager
def _server(replies: Replies) -> Iterator[str]:
    """One connection is served; no replies close it. Gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, replies))
        thread.start()
        try:
            yield str(listener.getsockname()[1])
        finally:
            thread.join(10)


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    try:
        build.program("load")
    except build.Missing as missing:
        pytest.skip(str(missing))


def _load(port: str) -> "subprocess.CompletedProcess[str]":
    command = [str(build.program("load")), "tasks", "--port", port, "--connections", "1", "--warmup", "0", "--seconds", "0.3"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)


def _except_tenth(answer: str) -> Replies:
    return lambda task_id, count: [answer.replace("%s", task_id)] if count == 10 else [SUCCEEDED % task_id]


def _ids_of_a_run() -> list[str]:
    seen: list[str] = []

    def reply(task_id: str, count: int) -> list[str]:
        seen.append(task_id)
        return [SUCCEEDED % task_id]

    with _server(reply) as port:
        done = _load(port)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["sent"] == result["finished"] == len(seen)
    return seen


def test_tasks_are_counted_one_by_one_under_ids_that_no_other_run_has() -> None:
    """A server that knows an id does not run its task again, which would be measured as a cheap task."""
    first, second = _ids_of_a_run(), _ids_of_a_run()
    assert len({*first, *second}) == len(first) + len(second)
    assert all(re.fullmatch(r"b[0-9a-f]{8}-00000-\d{10}", task_id) for task_id in first)


@pytest.mark.parametrize(
    "answer",
    [
        '{"id": "%s", "error": {"code": "busy", "message": "later"}}',
        '{"id": "%s", "event": "failed", "seq": 3, "attempt": 1, "error": {"code": "failed", "message": "no"}}',
        '{"id": "%s", "event": "accepted", "seq": 1, "position": 0}',
        '{"error": {"code": "bad_request", "message": "what?"}}',
    ],
    ids=["refused", "failed", "not-final", "no-id"],
)
def test_what_did_not_succeed_is_counted_and_printed(answer: str) -> None:
    with _server(_except_tenth(answer)) as port:
        done = _load(port)
    assert done.returncode == 1
    assert json.loads(done.stdout)["errors"] == 1
    assert answer.partition("%s")[2] in done.stderr


def test_an_answer_given_twice_is_counted_and_printed() -> None:
    with _server(lambda task_id, count: [SUCCEEDED % task_id] * (1 + (count == 10))) as port:
        done = _load(port)
    assert done.returncode == 1
    assert json.loads(done.stdout)["duplicates"] == 1
    assert "answered twice" in done.stderr


def test_a_lost_connection_ends_the_run() -> None:
    with _server(lambda task_id, count: [SUCCEEDED % task_id] if count < 10 else []) as port:
        done = _load(port)
    assert done.returncode == 1
    assert "was lost" in done.stderr
    assert not done.stdout


def test_a_refused_handshake_ends_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        thread = threading.Thread(target=_refuse, args=(listener,))
        thread.start()
        done = _load(port)
        thread.join(10)
    assert done.returncode == 1
    assert "403" in done.stderr


def _refuse(listener: socket.socket) -> None:
    with listener.accept()[0] as peer:
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
