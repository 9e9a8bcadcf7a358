"""A WebSocket connection under attack: broken frames, limits, peers that are slow, silent or gone. The same process serves on after it."""

import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.gateway.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.harness import Server, wait_until
from tests.rawclient import ACCEPT, RawClient, announced, client_frame, request, text_frame

KIB, MIB = 1024, 1024 * 1024
FLAGS = ("--workers", "1", "--handler", "tests.gateway_handlers", "--max-unsent", "256KiB", "--stall-timeout", "1")


class Front:
    """A server with the handlers of the tests, seen from its gateway process."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = int(server.http_url.rstrip("/").rsplit(":", 1)[1])
        self.pid = server.gateway_pid()

    def connect(self, path: str = "/", receive_buffer: int = 0) -> RawClient:
        return RawClient(self.port, path, receive_buffer=receive_buffer)

    def memory(self) -> int:
        """Bytes of this process that are resident."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def files(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def closed(self) -> list[str]:
        """The codes with which connections were closed, as their handler saw them."""
        path = self.server.home / "closed"
        return path.read_text().split() if path.exists() else []


@pytest.fixture(scope="module")
def shared_front() -> Iterator[Front]:
    running = Server(*FLAGS)
    yield Front(running)
    running.clean()


@pytest.fixture
def front(shared_front: Front) -> Iterator[Front]:
    """The server that the tests of this file share: none may kill it, or leave anything behind in it."""
    files = shared_front.files()
    yield shared_front
    assert shared_front.server.gateway_pid() == shared_front.pid
    wait_until(lambda: shared_front.files() <= files, 10.0, lambda: f"{shared_front.files()} files are open, not {files}")


FAULTS = {
    "unmasked": (client_frame(TEXT, b"hello", mask=b""), 1002),
    "reserved bit": (client_frame(TEXT, b"hello", reserved=4), 1002),
    "reserved opcode": (client_frame(11, b"hello"), 1002),
    "continuation of nothing": (client_frame(CONTINUATION, b"hello"), 1002),
    "long ping": (client_frame(PING, b"x" * 126), 1002),
    "close with half a code": (client_frame(CLOSE, b"\x03"), 1002),
    "close with a code that is none": (client_frame(CLOSE, struct.pack("!H", 1006)), 1002),
    "close with a bad reason": (client_frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "bad UTF-8": (client_frame(TEXT, b"\xc3\x28"), 1007),
    "8 GiB": (announced(TEXT, 8 << 30), 1009),
    "2^63": (announced(BINARY, 1 << 63), 1009),
    "a byte past the limit": (announced(TEXT, 64 * KIB + 1), 1009),
    "fragments past the limit": (
        client_frame(TEXT, b"x" * 40000, final=False) + client_frame(CONTINUATION, b"x" * 40000, final=False),
        1009,
    ),
    "endless empty fragments": (client_frame(TEXT, final=False) + client_frame(CONTINUATION, final=False) * 5000, 1009),
    "garbage": (b"\xff" * 100, 1002),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", 1002),
}


@pytest.mark.parametrize("path", ["/", "/ws"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_frame_is_answered_with_its_code(front: Front, name: str, path: str) -> None:
    frames, code = FAULTS[name]
    with front.connect(path) as client:
        client.send(frames)
        closed = client.drain()
    assert closed is not None
    assert closed[0] == code


def test_a_large_sender_sees_the_code_as_well(front: Front) -> None:
    for _ in range(20):
        with front.connect() as client:
            client.send(client_frame(TEXT, b"hello", mask=b""), bytes(MIB))
            assert client.drain() == (1002, "frames of a client must be masked")


def test_messages_before_a_fault_are_answered_before_the_close(front: Front) -> None:
    with front.connect() as client:
        client.send(text_frame("echo one"), text_frame("echo two"), client_frame(TEXT, b"", mask=b""))
        assert [client.message(), client.message(), client.message()] == ["one", "two", None]
        assert client.closed is not None


def test_memory_stays_flat_under_frames_that_announce_too_much_or_never_end(front: Front) -> None:
    def attack() -> None:
        with front.connect() as one, front.connect() as other:
            one.send(announced(TEXT, 8 << 30), b"x" * 100_000)
            other.send(client_frame(BINARY, bytes(60000), final=False), client_frame(CONTINUATION, bytes(60000), final=False))
            assert [(one.drain() or (0,))[0], (other.drain() or (0,))[0]] == [1009, 1009]

    for _ in range(5):
        attack()
    before = front.memory()
    for _ in range(30):
        attack()
    assert front.memory() - before < 8 * MIB


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4000, 4999])
def test_a_close_frame_is_answered_with_its_own_code(front: Front, code: int) -> None:
    seen = front.closed().count(str(code))
    with front.connect() as client:
        client.send(client_frame(CLOSE, struct.pack("!H", code) + b"bye"), b"\xff" * 10)
        assert client.drain() == (code, "")
    wait_until(lambda: front.closed().count(str(code)) == seen + 1)


def test_a_close_frame_without_a_code_is_answered_with_one_without(front: Front) -> None:
    with front.connect() as client:
        client.send(client_frame(CLOSE))
        assert client.drain() == (1005, "")


@pytest.mark.parametrize("code", [1000, 1008, 1013, 3999, 4001])
def test_a_handler_closes_with_its_code_and_reason_after_what_it_sent(front: Front, code: int) -> None:
    with front.connect() as client:
        client.send(text_frame(f"close {code} Grüße"))
        assert client.message() == "before"
        assert client.drain() == (code, "Grüße")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000])
def test_a_code_that_may_not_be_sent_is_an_error_of_the_handler(front: Front, code: int) -> None:
    with front.connect() as client:
        client.send(text_frame(f"close {code}"), text_frame("echo on"))
        assert {client.message(), client.message()} == {"before", "on"}


def test_frames_sent_along_with_the_handshake_are_read(front: Front) -> None:
    with RawClient(front.port, upgrade=False) as client:
        client.send(request("/", front.port), text_frame("echo early"), text_frame("echo too")[:5])
        status, headers, rest = client.head()
        assert (status, headers["sec-websocket-accept"]) == (101, ACCEPT)
        while len(rest) < 7:
            rest += client.receive()
        assert rest == b"\x81\x05early"


def test_a_message_that_comes_a_byte_at_a_time_is_taken(front: Front) -> None:
    with front.connect() as client:
        for byte in text_frame("echo slowly, слово"):
            client.send(bytes([byte]))
        assert client.message() == "slowly, слово"


def test_fragments_with_pings_between_them_are_one_message(front: Front) -> None:
    with front.connect() as client:
        client.send(client_frame(TEXT, b"echo \xd0", final=False), client_frame(PING, b"still there?"))
        assert client.wait_control(PONG) == b"still there?"
        client.send(client_frame(CONTINUATION, b"\xb6", final=False), client_frame(CONTINUATION, b"!"))
        assert client.message() == "ж!"


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_binary_goes_both_ways_at_every_length(front: Front, length: int) -> None:
    payload = bytes(range(256)) * 256
    with front.connect() as client:
        client.send(client_frame(BINARY, payload[:length]))
        assert client.message() == payload[:length]


def test_frames_of_greenlets_that_send_at_once_never_mix(front: Front) -> None:
    with front.connect() as client:
        client.send(text_frame("chorus 40"))
        messages = []
        while (message := client.message()) != "sung":
            assert isinstance(message, str)
            messages.append(message)
    assert len(messages) == 8 * 40
    assert all(len(set(message)) == 1 for message in messages)
    for letter in "abcdefgh":
        lengths = [len(message) for message in messages if message[0] == letter]
        assert lengths == [number * 977 % 70000 + 1 for number in range(40)]


def test_a_blocking_handler_holds_up_neither_pings_nor_messages_nor_others(front: Front) -> None:
    with front.connect() as client, front.connect() as other:
        client.send(text_frame("block 3"), text_frame("echo meanwhile"), client_frame(PING, b"1"))
        start = time.monotonic()
        assert client.wait_control(PONG) == b"1"
        assert client.message() == "meanwhile"
        other.send(text_frame("echo other"))
        assert other.message() == "other"
        assert time.monotonic() - start < 2.5
        assert client.message() == "blocked"


def test_a_handler_that_fails_ends_its_message_and_not_the_connection(front: Front) -> None:
    with front.connect() as client:
        client.send(text_frame("fail"), text_frame("nonsense"), text_frame("echo on"))
        assert client.message() == "on"
    assert "told to fail" in front.server.log()


def test_a_reader_that_is_slow_gets_everything(front: Front) -> None:
    with front.connect(receive_buffer=8 * KIB) as client:
        client.send(text_frame("flood 20"))
        for _ in range(20):
            time.sleep(0.03)
            assert client.message() == "x" * 65536
        assert client.message() == "flooded"


def test_a_reader_that_stops_is_closed_with_1013_and_costs_no_memory(front: Front) -> None:
    before, seen = front.memory(), front.closed().count("1013")
    with front.connect(receive_buffer=8 * KIB) as client:
        client.send(text_frame("flood 2000"))
        wait_until(lambda: front.closed().count("1013") == seen + 1)
        assert front.memory() - before < 16 * MIB
        assert client.drain() == (1013, "what was sent is not being read")


def test_a_reader_that_never_reads_again_is_cut_off(front: Front) -> None:
    files = front.files()
    with front.connect(receive_buffer=8 * KIB) as client:
        client.send(text_frame("flood 2000"))
        wait_until(lambda: front.files() > files)
        wait_until(lambda: front.files() == files)


def test_a_peer_that_pings_and_never_reads_is_not_read_from(front: Front) -> None:
    before, seen = front.memory(), front.closed().count("1013")
    pings = client_frame(PING, b"x" * 125) * 500
    with front.connect(receive_buffer=8 * KIB) as client:
        client.socket.settimeout(0.5)
        with pytest.raises(OSError, match=r"timed out|reset|Broken pipe"):
            client.send(pings * 1000)
        wait_until(lambda: front.closed().count("1013") > seen)
    assert front.memory() - before < 8 * MIB


def test_a_client_that_pipelines_does_not_hold_the_others_up(front: Front) -> None:
    with front.connect() as client, front.connect() as other:
        client.socket.settimeout(0.2)
        slowest = 0.0
        for _ in range(20):
            client.send(text_frame("echo x" * 100) * 50)
            start = time.monotonic()
            other.send(text_frame("echo y"))
            assert other.message() == "y"
            slowest = max(slowest, time.monotonic() - start)
            for _ in range(50):
                client.message()
    assert slowest < 1.0


def test_clients_that_vanish_are_forgotten(front: Front) -> None:
    files = front.files()
    clients = [front.connect() for _ in range(50)]
    wait_until(lambda: front.files() >= files + 50)
    for number, client in enumerate(clients):
        if number % 2:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        client.send(text_frame("block 0.2"), client_frame(TEXT, b"x" * 60000)[:30000])
        client.socket.close()
    wait_until(lambda: front.files() <= files)


def test_the_built_in_gateway_refuses_binary_with_1003(front: Front) -> None:
    with front.connect("/ws") as client:
        client.send(client_frame(BINARY, b"\x00"))
        assert (client.drain() or (0,))[0] == 1003


def test_a_quiet_peer_is_pinged_and_a_silent_one_is_cut_off(start_server: Callable[..., Server]) -> None:
    front = Front(start_server("--workers", "1", "--ping-interval", "0.4", "--ping-timeout", "1.5"))
    with front.connect("/ws") as quiet, front.connect("/ws") as silent:
        for _ in range(6):
            quiet.wait_control(PING)
            quiet.send(client_frame(PONG))
        start = time.monotonic()
        assert silent.drain() is None  # pings came, and then the end
        assert silent.controls[0][0] == PING
        assert time.monotonic() - start < 5.0
        quiet.send(text_frame('{"ping": 7}'))
        assert quiet.message() == '{"pong":7}'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_when_the_server_ends_connections_are_closed_with_1001(start_server: Callable[..., Server], number: int) -> None:
    server = start_server("--workers", "1")
    front = Front(server)
    with front.connect("/ws") as client:
        assert server.stop(number) == 0
        assert client.drain() == (1001, "the server is going away")


def test_on_term_connections_without_work_are_closed_at_once_and_the_others_when_it_is_done(start_server: Callable[..., Server]) -> None:
    server = start_server("--workers", "1", "--handler", "tests.gateway_handlers")
    front = Front(server)
    with front.connect("/ws") as busy, front.connect() as handled, front.connect("/ws") as idle, front.connect() as silent:
        busy.send(text_frame('{"function": "sleep", "args": {"seconds": 2}, "id": "a"}'))
        handled.send(text_frame("block 1.5"))
        while "started" not in str(busy.message()):
            continue
        start = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert idle.drain() == silent.drain() == (1001, "the server is going away")
        assert time.monotonic() - start < 1.0
        assert handled.message() == "blocked"
        assert '"succeeded"' in str(busy.message())
        assert busy.drain() == handled.drain() == (1001, "the server is going away")
    assert server.wait() == 0


def test_connections_leave_nothing_for_the_garbage_collector(front: Front) -> None:
    def garbage() -> int:
        with front.connect() as client:
            client.send(text_frame("garbage"))
            return int(str(client.message()))

    def leave(frames: bytes) -> None:
        with front.connect() as client:
            client.send(text_frame("echo hello"))
            assert client.message() == "hello"
            client.send(frames)
            client.drain() if frames else None

    files = front.files()
    for frames in (b"", client_frame(CLOSE), text_frame("close 4000"), *(frames for frames, _ in FAULTS.values())):
        leave(frames)
        wait_until(lambda: front.files() <= files)
        garbage()
        for _ in range(10):
            leave(frames)
        wait_until(lambda: front.files() <= files)
        assert garbage() < 10


def test_when_descriptors_run_out_clients_wait_and_the_gateway_goes_on(start_server: Callable[..., Server]) -> None:
    server = start_server("--workers", "1")
    front = Front(server)
    resource.prlimit(front.pid, resource.RLIMIT_NOFILE, (128, 128))
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(front.port, upgrade=False)) for _ in range(100)]
        for client in clients:
            client.send(request("/ws", front.port), text_frame('{"function": "echo", "events": "final", "id": "a"}'))
        sockets = [client.socket for client in clients]
        wait_until(lambda: "full:" in server.log() and len(select.select(sockets, [], [], 0)[0]) > 40)
        served = [client for client in clients if client.socket in select.select(sockets, [], [], 0.5)[0]]
        assert len(served) < 80
        for client in served:
            client.socket.close()
        for client in clients:
            if client not in served:
                assert client.head()[0] == 101
    assert server.log().count("full:") < 10
    assert "Traceback" not in server.log()
