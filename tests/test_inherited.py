"""A listener, a name and an end that come from whoever started the process. Under a real supervisord: `test_supervisord_split.py`."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app import listeners
from app.address import Address
from app.errors import SettingsError
from app.supervised import follow
from tests.harness import ROOT, Process, Server, TextClient

Start = Callable[..., Server]
EXEC = "os.execv(sys.argv[1], sys.argv[1:])"
LISTENING = f"import os, socket, sys; at = socket.create_server(('127.0.0.1', 0)); os.dup2(at.fileno(), int(sys.argv.pop(1))); {EXEC}"
UNREAD = f"import os, sys; nobody, ours = os.pipe(); os.close(nobody); os.dup2(ours, 1); {EXEC}"


def handing_over(fd: int) -> tuple[str, ...]:
    return (sys.executable, "-c", LISTENING, str(fd))


@pytest.mark.parametrize("fd", [0, 7])
def test_a_worker_takes_a_listener_over_and_leaves_nothing_in_its_place(start_server: Start, fd: int) -> None:
    server = start_server("worker", "--text", f"fd:{fd}", "--workers", "3", "--name", "db-7.a", under=handing_over(fd))
    with TextClient(server.text_address) as client:
        described = client.ask({"describe": True})["describe"]
    assert (described["name"], described["siblings"]) == ("db-7.a", 3)
    entry = Path(f"/proc/{server.pid}/fd/{fd}")
    assert os.readlink(entry) == os.devnull if fd == 0 else not _is_port(entry, server.text_address[1])
    assert server.stop() == 0


def _is_port(entry: Path, port: int) -> bool:
    """Whether the descriptor is still a socket that listens there."""
    if not entry.exists() or not os.readlink(entry).startswith("socket:"):
        return False
    inode = os.readlink(entry).removeprefix("socket:[").removesuffix("]")
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[9] == inode and int(row[1].split(":")[1], 16) == port for row in rows)


def test_a_gateway_and_a_master_take_one_over_as_well(start_server: Start) -> None:
    server = start_server("--ws", "fd:5", under=handing_over(5))
    assert server.ws_url.startswith("ws://127.0.0.1:")
    with socket.create_connection(("127.0.0.1", int(server.ws_url.rsplit(":", 1)[1].split("/")[0]))) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_what_was_not_handed_over_ends_the_start_with_the_reason() -> None:
    for fd, reason in ((0, "Socket operation on non-socket"), (9, "Bad file descriptor")):
        process = Process([sys.executable, str(ROOT / "run.py"), "worker", "--text", f"fd:{fd}"])
        try:
            assert process.wait() == 2
            assert f"--text: nothing that listens was handed over as fd:{fd}: {reason}" in process.log()
        finally:
            process.clean()


def test_a_connection_is_no_listener() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(SettingsError, match="does not listen"):
        listeners.listen(Address("", 0, fd=ours.fileno()), "--text")


def test_a_unix_socket_without_a_path_is_not_taken_over() -> None:
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(f"\0handoff-test-{os.getpid()}")
        given.listen()
        with pytest.raises(SettingsError, match="with a path"):
            listeners.listen(Address("", 0, fd=given.fileno()), "--text")


def test_nobody_connects_to_a_descriptor() -> None:
    with pytest.raises(SettingsError, match="fd:3 is where a process listens"):
        _ = Address.parse("fd:3").sockaddr


def test_what_starts_when_supervisord_is_gone_already_ends_at_once() -> None:
    under = [sys.executable, "-c", UNREAD]
    process = Process([*under, sys.executable, str(ROOT / "run.py"), "worker", "--text", "127.0.0.1:0"], {"SUPERVISOR_ENABLED": "1"})
    try:
        assert process.wait() == 4
    finally:
        process.clean()


def test_without_supervisord_nothing_is_followed() -> None:
    follow({})
    follow({"SUPERVISOR_ENABLED": ""})
