"""How a worker ends that is told to: what it was asked is answered first, within its limit, and all of it leaves."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.harness import Server, TextClient


def terminate(worker: Server) -> None:
    """Tell it to leave; does not wait."""
    os.kill(worker.pid, signal.SIGTERM)


@pytest.fixture
def leaving() -> Iterator[Callable[..., Server]]:
    """Workers that a test ends by itself."""
    started: list[Server] = []

    def start(*flags: str) -> Server:
        started.append(Server("worker", "--tasks", "tests.worker_tasks", *flags))
        return started[-1]

    yield start
    for one in started:
        one.clean()


def test_told_to_leave_it_answers_first_what_it_was_asked(leaving: Callable[..., Server]) -> None:
    worker = leaving()
    clients = [TextClient(worker.text_address) for _ in range(5)]
    for number, client in enumerate(clients):
        assert client.ask({"ping": 1}) == {"pong": 1}
        client.send(b'{"function":"sleep","args":[0.%d]}\n{"function":"echo","args":{"n":%d}}\n' % (number + 1, number))
    assert worker.stop() == 0
    for number, client in enumerate(clients):
        assert client.receive() == (number + 1) / 10
        assert client.receive() == {"n": number}
        assert client.receive_line() == b""
        client.close()


def test_told_to_leave_it_lets_a_slow_reader_have_the_whole_answer(leaving: Callable[..., Server]) -> None:
    worker = leaving("--max-result", "20MiB")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(worker.text_address)
    slow.sendall(b'{"function":"large_greenlet","args":[15000000]}\n')
    slow.recv(1)
    terminate(worker)
    time.sleep(0.3)
    size = 1
    while data := slow.recv(1 << 20):
        size += len(data)
    slow.close()
    assert size == 15_000_003
    assert worker.wait() == 0


def test_what_has_just_come_in_when_it_is_told_to_leave_is_answered(leaving: Callable[..., Server]) -> None:
    worker = leaving()
    client = TextClient(worker.text_address)
    assert client.ask({"ping": 1}) == {"pong": 1}
    os.kill(worker.pid, signal.SIGSTOP)
    terminate(worker)
    client.send(b'{"function":"echo","args":{"late":true}}\n')
    os.kill(worker.pid, signal.SIGCONT)
    assert client.receive() == {"late": True}
    assert client.receive_line() == b""
    client.close()
    assert worker.wait() == 0


def test_who_had_just_connected_when_it_is_told_to_leave_may_ask(leaving: Callable[..., Server]) -> None:
    for _ in range(5):  # a busy machine may take longer than the moment that it is given
        worker = leaving()
        with TextClient(worker.text_address) as client, TextClient(worker.text_address) as other:
            assert other.ask({"ping": 1}) == {"pong": 1}, "so both are accepted"
            terminate(worker)
            time.sleep(0.05)
            client.send(b'{"function":"echo","args":{"first":true}}\n')
            answer = client.receive_line()
            assert other.receive_line() == b"", "it had its answer, and asks for nothing"
        assert worker.wait() == 0
        if answer:
            break
    assert answer == b'{"first":true}\n'


def test_told_twice_it_leaves_at_once(leaving: Callable[..., Server]) -> None:
    worker = leaving()
    with TextClient(worker.text_address) as client:
        client.send(b'{"function":"sleep","args":[600]}\n{"ping":1}\n')
        client.receive()
        terminate(worker)
        time.sleep(0.1)
        assert worker.running()
        began = time.monotonic()
        assert worker.stop(2) == 0
        assert time.monotonic() - began < 5


def test_it_waits_no_longer_than_it_is_allowed_to(leaving: Callable[..., Server]) -> None:
    worker = leaving("--graceful", "0.3")
    with TextClient(worker.text_address) as client:
        client.send(b'{"function":"sleep","args":[600]}\n{"ping":1}\n')
        client.receive()
        began = time.monotonic()
        assert worker.stop() == 0
        assert 0.2 < time.monotonic() - began < 5
