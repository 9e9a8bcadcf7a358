"""The blocking client, against a real worker: with and without gevent, alone and shared between threads."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.address import Address
from app.client import TaskClient, TaskConnection
from app.errors import RemoteError, TooLarge, Unavailable
from tests.harness import ROOT, Server, wait_until


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    running = Server("worker", "--tasks", "tests.worker_tasks", "--max-result", "3MiB")
    yield running
    running.clean()


@pytest.fixture
def address(worker: Server) -> Address:
    return Address(*worker.text_address)


@pytest.fixture
def connection(address: Address) -> Iterator[TaskConnection]:
    with TaskConnection(address) as one:
        yield one


@pytest.fixture
def client(address: Address) -> Iterator[TaskClient]:
    one = TaskClient(str(address))
    yield one
    one.close()


@contextmanager
def answering(*answers: bytes) -> Iterator[Address]:
    """Somebody who takes connections and says just this on each, whatever is asked; an empty answer ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                sock, _ = listener.accept()
                with sock:
                    sock.recv(65536)
                    sock.sendall(answer)
                    while answer and sock.recv(65536):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Address(*listener.getsockname())
        thread.join(10)


# One connection.


def test_call_gives_the_result(connection: TaskConnection) -> None:
    text = "مرحبا 😀 \\u0000"
    assert connection.call("echo", {"text": text, "number": 10**100}) == {"text": text, "number": 10**100}
    assert connection.call("sleep", [0]) == 0
    assert connection.call("echo") == {}


def test_events_are_told_as_they_come_up_to_the_final_one(connection: TaskConnection) -> None:
    events = list(connection.events("countdown", {"start": 2, "interval": 0}))
    assert [event["event"] for event in events] == ["started", "output", "output", "output", "succeeded"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert [event["value"] for event in events[1:-1]] == [2, 1, 0]


@pytest.mark.parametrize(
    ("function", "args", "code", "part"),
    [
        ("no_such_function", None, "unknown_function", "no_such_function"),
        ("sleep", {"second": 1}, "bad_arguments", "second"),
        ("sleep", {"seconds": "1"}, "bad_arguments", "seconds"),
        ("fail", {"message": "oh no"}, "failed", "oh no"),
        ("naps_limited_greenlet", {"seconds": 60}, "timed_out", "0.3"),
        ("large_greenlet", {"size": 4 << 20}, "too_large", "result"),
    ],
)
def test_what_went_wrong_is_raised_with_its_code(
    connection: TaskConnection, function: str, args: dict | None, code: str, part: str
) -> None:
    with pytest.raises(RemoteError, match=part) as error:
        connection.call(function, args)
    assert error.value.code == code
    assert connection.call("echo", {"still": "there"}) == {"still": "there"}


def test_details_of_an_error_come_along(connection: TaskConnection) -> None:
    with pytest.raises(RemoteError) as error:
        connection.call("sleep", {"seconds": "1"})
    assert error.value.details["parameter"] == "seconds"
    assert error.value.as_wire()["code"] == "bad_arguments"


def test_what_is_left_of_a_task_that_nobody_waits_for_is_passed_over(connection: TaskConnection) -> None:
    abandoned = connection.events("countdown", {"start": 3, "interval": 0.01})
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]
    assert connection.call("sleep", [0.1]) == 0.1


def test_no_answer_in_time_is_unavailable(connection: TaskConnection) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="no answer"):
        connection.call("sleep", [5], timeout=0.1)
    assert time.monotonic() - began < 3


def test_requests_have_their_answers(connection: TaskConnection) -> None:
    assert connection.request({"ping": [1, "x"]}) == {"pong": [1, "x"]}
    assert "echo" in {entry["name"] for entry in connection.request({"describe": True})["describe"]["functions"]}
    with pytest.raises(RemoteError) as error:
        connection.request({"nonsense": 1})
    assert error.value.code == "bad_request"


def test_arguments_past_the_limit_of_a_line_are_told_as_too_large(connection: TaskConnection) -> None:
    with pytest.raises(RemoteError) as error:
        connection.call("echo", {"text": "x" * (5 << 20)})
    assert error.value.code == "too_large"


def test_nobody_there_is_unavailable_and_says_where(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        nobody = Address(*bound.getsockname())
        for address in (nobody, Address("", 0, str(tmp_path / "nobody.sock")), Address("", 0, "/" + "x" * 200)):
            with pytest.raises(Unavailable, match="nobody answers") as error:
                TaskConnection(address)
            assert str(address) in error.value.message
            assert isinstance(error.value.__cause__, OSError)


@pytest.mark.parametrize("answer", [b'"short form"\n', b"[1]\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\n", b"\n"])
def test_somebody_who_speaks_something_else_is_unavailable(answer: bytes) -> None:
    with answering(answer) as address, TaskConnection(address) as connection, pytest.raises(Unavailable, match="does not speak"):
        connection.call("echo")


def test_an_end_in_the_middle_is_unavailable() -> None:
    with answering(b"") as address, TaskConnection(address) as connection, pytest.raises(Unavailable, match="closed the connection"):
        connection.call("echo")


def test_a_line_past_the_clients_own_limit_is_not_taken(address: Address) -> None:
    with TaskConnection(address, max_line=1000) as connection:
        assert connection.call("large_greenlet", [500]) == "x" * 500
        with pytest.raises(TooLarge):
            connection.call("large_greenlet", [2000])


# The client that keeps connections.


def test_connections_are_kept_and_used_again(client: TaskClient) -> None:
    assert client.call("echo", {"n": 1}) == {"n": 1}
    (kept,) = client._idle
    assert client.call("echo", {"n": 2}) == {"n": 2}
    with pytest.raises(RemoteError):
        client.call("fail")
    assert "sleep" in {entry["name"] for entry in client.describe()["functions"]}
    assert client._idle == [kept]


def test_large_arguments_go_through_a_connection_that_was_kept(client: TaskClient) -> None:
    """More than the system takes at once: sending has to block, also the second time."""
    text = "x" * 900_000
    for _ in range(3):
        assert client.call("echo", {"text": text}) == {"text": text}
        client._idle[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    assert len(client._idle) == 1


def test_after_a_line_too_long_the_client_goes_on_with_another_connection(client: TaskClient) -> None:
    with pytest.raises(RemoteError) as error:
        client.call("echo", {"text": "x" * (2 << 20)})
    assert error.value.code == "too_large"
    assert client.call("echo", {"n": 1}) == {"n": 1}


def test_an_idle_connection_that_was_closed_meanwhile_is_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'text.sock'}"
    client = TaskClient(address)
    for number in range(2):
        running = Server("worker", "--text", address)
        try:
            assert client.call("echo", {"n": number}) == {"n": number}
            assert len(client._idle) == 1
        finally:
            running.clean()
    with pytest.raises(Unavailable, match="nobody answers"):
        client.call("echo")
    client.close()


def test_a_connection_that_did_not_answer_in_time_is_not_used_again(address: Address) -> None:
    client = TaskClient(str(address), timeout=0.2)
    with pytest.raises(Unavailable):
        client.call("naps_greenlet", [0.4])
    assert client._idle == []
    assert client.call("echo", {"n": 1}) == {"n": 1}
    time.sleep(0.3)
    assert client.call("echo", {"n": 2}) == {"n": 2}
    client.close()


def test_a_client_whose_describe_fails_keeps_no_connection() -> None:
    with answering(b"", b'{"describe":{"functions":[]}}\n') as address:
        client = TaskClient(str(address))
        with pytest.raises(Unavailable):
            client.describe()
        assert client._idle == []
        assert client.describe() == {"functions": []}
        client.close()


def test_threads_may_share_a_client(client: TaskClient) -> None:
    with ThreadPoolExecutor(20) as threads:
        began = time.monotonic()
        assert list(threads.map(lambda number: client.call("sleep", [0.2 + number / 1e6]), range(20))) == [0.2 + n / 1e6 for n in range(20)]
        assert time.monotonic() - began < 3
        assert list(threads.map(lambda number: client.call("echo", {"n": number}), range(400))) == [{"n": number} for number in range(400)]
    wait_until(lambda: len(client._idle) <= 20)


UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import socket, sys, time, gevent
from app.client import TaskClient
from app.errors import RemoteError, Unavailable

client, ticks = TaskClient(sys.argv[1]), []

def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)

ticking = gevent.spawn(tick)
began = time.monotonic()
calls = [gevent.spawn(client.call, "sleep", [0.3]) for _ in range(30)]
assert [call.get() for call in calls] == [0.3] * 30
assert time.monotonic() - began < 4, "they waited for each other"
assert len(ticks) > 5, "the hub was held"
text = "x" * 900_000
assert client.call("echo", {"text": text}) == {"text": text}
for connection in client._idle:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
assert client.call("echo", {"text": text}) == {"text": text}
try:
    client.call("fail", {"message": "oh"})
except RemoteError as error:
    assert error.code == "failed"
try:
    TaskClient(sys.argv[1], timeout=0.1).call("sleep", [5])
except Unavailable as error:
    print("done")
"""


def test_greenlets_may_share_a_client_and_nothing_holds_their_hub(worker: Server) -> None:
    host, port = worker.text_address
    command = [sys.executable, "-W", "error", "-c", UNDER_GEVENT, f"{host}:{port}"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.stdout, ran.stderr) == ("done\n", "")


def test_it_needs_nothing_but_ujson() -> None:
    script = "import sys, app.client; print(sorted(m for m in ('gevent', 'greenlet', 'geventwebsocket', 'workers') if m in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout == "[]\n"
