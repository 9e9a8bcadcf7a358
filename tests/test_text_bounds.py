"""The workers' port and those who hold it up, or mean something else by it: silence, bytes that drip, answers that nobody reads, HTTP."""

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.effects import runs
from tests.harness import Server, TextClient, wait_until

FLAGS = ("worker", "--text-idle", "1", "--tasks", "tests.sample_tasks")
LATE = 20.0


def is_held(server: Server, client: socket.socket) -> bool:
    """Whether the worker has its end of this connection open."""
    ends = f":{server.text_address[1]:04X}", f":{client.getsockname()[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any((local[-5:], remote[-5:]) == ends and state in ("01", "08") for _, local, remote, state, *_ in lines)  # open, or half closed


@pytest.fixture
def clients(server: Server) -> Iterator[list[TextClient]]:
    several = [TextClient(server.text_address) for _ in range(4)]
    yield several
    for client in several:
        client.close()


def test_who_says_nothing_or_no_whole_line_is_closed_and_who_works_is_not(clients: list[TextClient]) -> None:
    silent, dripping, talking, working = clients
    working.send({"id": "w", "function": "sleep", "args": {"seconds": 11}, "events": "final"})
    assert silent.ask({"ping": 1}) == {"pong": 1}
    silent.socket.settimeout(0.05)
    until = time.monotonic() + LATE
    ended: set[str] = set()
    while len(ended) < 2 and time.monotonic() < until:
        assert talking.ask({"ping": 2}) == {"pong": 2}
        for name, client in (("silent", silent), ("dripping", dripping)):
            if name not in ended and has_ended(client, b" " if name == "dripping" else b""):
                ended.add(name)
    assert ended == {"silent", "dripping"}
    assert working.receive(LATE)["event"] == "succeeded"


def has_ended(client: TextClient, say: bytes) -> bool:
    try:
        client.socket.settimeout(0.05)
        client.socket.sendall(say)
        return client.socket.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_answers_that_nobody_reads_are_not_kept_for_ever(server: Server) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.text_address)
        client.sendall(b'{"id":"f","function":"flow","args":{"count":3000,"width":10000}}\n')
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: is_held(server, client))
        wait_until(lambda: not is_held(server, client), LATE)


BODY = b'{"function":"mark"}\n'
BROWSERS = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1:12345\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n\r\n" + BODY,
    b"GET /?\n" + BODY,
    b"PUT /" + BODY,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n" + BODY,
)


@pytest.mark.parametrize("said", BROWSERS, ids=range(len(BROWSERS)))
@pytest.mark.parametrize("at_once", [True, False])
def test_no_page_can_have_a_browser_send_a_task(server: Server, said: bytes, at_once: bool) -> None:
    """A page may have any browser send a POST to a port of its machine, with a body of its choice, and need not see the answer."""
    with TextClient(server.text_address) as client:
        for part in [said] if at_once else [said[:1], said[1:]]:
            client.send(part)
            time.sleep(0 if at_once else 0.1)  # so that the first byte is read alone
        answer = client.receive()
        assert answer["error"]["code"] == "bad_request"
        assert "no HTTP" in answer["error"]["message"]
        assert client.receive_line() == b""
    assert runs(server)[""] == 0


def test_a_task_in_the_usual_way_leaves_its_mark(server: Server) -> None:
    """So that the tests above would see one."""
    with TextClient(server.text_address) as client:
        client.send(BODY)
        client.receive()
    assert runs(server)[""] == 1


def test_who_speaks_tls_to_a_port_without_is_not_left_waiting(server: Server) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with socket.create_connection(server.text_address, timeout=LATE) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
