"""TLS: contexts made of files, and the socket that speaks it, over real sockets and with certificates of the tests' own authority."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app import tls
from app.errors import HandoffError, SettingsError, Unauthorized, Unavailable
from app.sealed import SealedSocket
from tests.certificates import Identities, make_identities
from tests.harness import ROOT


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return make_identities(tmp_path_factory.mktemp("tls"))


Pair = tuple[SealedSocket, SealedSocket]


@contextmanager
def connected(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "127.0.0.1") -> Iterator[Pair]:
    """Both ends of a connection, after the handshake."""
    ours, theirs = socket.socketpair()
    ends = SealedSocket(ours, server, server_side=True), SealedSocket(theirs, client, server_hostname=name)
    accepting = threading.Thread(target=_shake, args=[ends[0]])
    accepting.start()
    try:
        ends[1].handshake(10)
        accepting.join()  # under TLS 1.3 the client is done first
        yield ends
    finally:
        for end in ends:
            end.close()
        accepting.join()


def _shake(end: SealedSocket) -> None:
    try:
        end.handshake(10)
    except HandoffError:
        end.close()


def files(ids: Identities, cert: Path | None = None, ca: Path | None = None) -> tls.Files:
    return tls.Files("--text", cert, None, ca)


def server(ids: Identities, *, mutual: bool = False) -> ssl.SSLContext:
    return tls.server_context(files(ids, ids.server, ids.ca if mutual else None))


def client(ids: Identities, cert: Path | None = None) -> ssl.SSLContext:
    return tls.client_context(files(ids, cert, ids.ca))


@pytest.mark.parametrize("size", [1, 16 * 1024, 16 * 1024 + 1, 3_000_000])
def test_what_is_sent_arrives_whole(ids: Identities, size: int) -> None:
    data = os.urandom(size)
    with connected(server(ids), client(ids)) as (one, other):
        sending = threading.Thread(target=one.sendall, args=[data])
        sending.start()
        received = b""
        while len(received) < size:
            received += other.recv(64 * 1024)
        sending.join()
        assert received == data
        assert (one.version, other.version) == ("TLSv1.3", "TLSv1.3")


def test_nothing_stays_behind_for_who_waits_until_the_descriptor_is_readable(ids: Identities) -> None:
    with connected(server(ids), client(ids)) as (one, other):
        for size in (5_000, 40_000, 90_000):
            one.sendall(b"x" * size)
            got = 0
            while got < size:
                assert other._socket.recv(1, socket.MSG_PEEK)  # blocks, and fails by the test's time limit, where all has been read
                got += len(other.recv(64 * 1024))
            assert got == size


def test_a_send_that_was_not_taken_goes_on_where_it_was(ids: Identities) -> None:
    data = os.urandom(2_000_000)
    with connected(server(ids), client(ids)) as (one, other):
        one.setblocking(False)
        sent, received, held = 0, b"", 0
        while len(received) < len(data):
            try:
                sent += one.send_now(data[sent:]) if sent < len(data) else 0
            except BlockingIOError:
                held += 1
            received += other.recv(64 * 1024)
        assert received == data
        assert held > 1


def test_after_our_goodbye_nothing_leaves_in_clear(ids: Identities) -> None:
    with connected(server(ids), client(ids)) as (one, other):
        other.sendall(b"late")
        one.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match=r"SHUTDOWN|pipe"):
            one.send_now(b"a secret")
        assert other.recv(65536) == b""
        assert b"late" not in one.recv(65536), "what is drained is not unsealed"


def test_answers_are_still_sealed_where_reading_was_given_up(ids: Identities) -> None:
    with connected(server(ids), client(ids)) as (one, other):
        one.shutdown(socket.SHUT_RD)
        one.send_now(b"the last answer")
        assert other.recv(65536) == b"the last answer"


def test_the_end_of_the_stream_is_the_end(ids: Identities) -> None:
    with connected(server(ids), client(ids)) as (one, other):
        one.sendall(b"all")
        one.shutdown(socket.SHUT_WR)
        assert [other.recv(65536) for _ in range(3)] == [b"all", b"", b""]


def refused(ids: Identities, theirs: ssl.SSLContext, ours: ssl.SSLContext, name: str = "127.0.0.1") -> HandoffError:
    with pytest.raises(HandoffError) as caught, connected(theirs, ours, name):
        pass
    return caught.value


def test_a_certificate_for_another_name_is_refused(ids: Identities) -> None:
    error = refused(ids, tls.server_context(files(ids, ids.elsewhere)), client(ids))
    assert isinstance(error, Unauthorized)
    assert "127.0.0.1" in error.message


def test_a_certificate_that_has_expired_is_refused(ids: Identities) -> None:
    error = refused(ids, tls.server_context(files(ids, ids.expired)), client(ids))
    assert isinstance(error, Unauthorized)
    assert "expired" in error.message


def test_a_certificate_of_another_authority_is_refused(ids: Identities) -> None:
    assert isinstance(refused(ids, tls.server_context(files(ids, ids.stranger)), client(ids)), Unauthorized)
    assert isinstance(refused(ids, server(ids), tls.client_context(files(ids))), Unauthorized), "the system knows none of the tests'"


@pytest.mark.parametrize("shown", ["nothing", "a stranger's"])
def test_a_server_with_an_authority_wants_a_certificate_of_it(ids: Identities, shown: str) -> None:
    ours, theirs = socket.socketpair()
    end = SealedSocket(ours, server(ids, mutual=True), server_side=True)
    other = SealedSocket(theirs, client(ids, None if shown == "nothing" else ids.stranger), server_hostname="127.0.0.1")
    speaking = threading.Thread(target=_shake, args=[other])
    speaking.start()
    with pytest.raises(Unauthorized):
        end.handshake(10)
    end.close()
    speaking.join()
    other.close()


def test_a_client_of_the_authority_is_let_in(ids: Identities) -> None:
    with connected(server(ids, mutual=True), client(ids, ids.client)) as (one, other):
        other.sendall(b"hi")
        assert one.recv(65536) == b"hi"
        assert tls.fingerprint(other.peer_certificate or b"") == tls.own_fingerprint(ids.server)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_nobody_is_talked_down_to_an_old_version(ids: Identities, version: ssl.TLSVersion) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(str(ids.ca))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = old.maximum_version = version
    assert "version" in refused(ids, server(ids), old).message


def test_tls_1_2_is_taken_with_forward_secrecy_only(ids: Identities) -> None:
    older = client(ids)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with connected(server(ids), older) as (_, other):
        assert other.version == "TLSv1.2"
    older.set_ciphers("AES128-GCM-SHA256")
    assert isinstance(refused(ids, server(ids), older), Unavailable)


@pytest.mark.parametrize("said", [b'{"ping": 1}\n', b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""])
def test_who_speaks_no_tls_is_shown_the_door_in_time(ids: Identities, said: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(said)
        began = time.monotonic()
        end = SealedSocket(ours, server(ids), server_side=True)
        with pytest.raises(Unavailable):
            end.handshake(0.3)
        assert time.monotonic() - began < 5
        end.close()


def test_a_byte_at_a_time_does_not_make_the_handshake_longer(ids: Identities) -> None:
    hello = ssl.MemoryBIO()
    machine = client(ids).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        machine.do_handshake()
    ours, theirs = socket.socketpair()
    end = SealedSocket(ours, server(ids), server_side=True)
    drip = threading.Thread(target=_drip, args=[theirs, hello.read()])
    drip.start()
    with pytest.raises(Unavailable, match="within"):
        end.handshake(0.5)
    end.close()
    drip.join()


def _drip(sock: socket.socket, data: bytes) -> None:
    with sock:
        try:
            for byte in data:
                sock.sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            return


MISTAKES: dict[str, Callable[[Identities], object]] = {
    "--text-cert": lambda ids: tls.server_context(files(ids)),
    "--text-cert: cannot read": lambda ids: tls.server_context(files(ids, Path("/nonexistent.pem"))),
    "do not belong together": lambda ids: tls.server_context(tls.Files("--text", ids.server, ids.client)),
    "no PEM": lambda ids: tls.client_context(tls.Files("--text", ca=Path(__file__))),
    "--text-key: a key": lambda ids: tls.client_context(tls.Files("--text", key=ids.client)),
    "--text-ca: cannot read": lambda ids: tls.client_context(tls.Files("--text", ca=Path("/nonexistent.pem"))),
}


@pytest.mark.parametrize("says", MISTAKES)
def test_a_file_that_cannot_be_used_is_named(ids: Identities, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        MISTAKES[says](ids)


def test_a_key_that_anybody_can_read_is_refused(ids: Identities, tmp_path: Path) -> None:
    key = tmp_path / "open.pem"
    key.write_bytes(ids.server.read_bytes())
    key.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod"):
        tls.server_context(files(ids, key))


def test_a_key_with_a_password_does_not_ask_the_terminal(ids: Identities, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkey", "-in", str(ids.server), "-aes256", "-passout", "pass:x", "-out", str(locked)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no openssl here")
    locked.chmod(0o600)
    with pytest.raises(SettingsError, match="password"):
        tls.server_context(tls.Files("--text", ids.server, locked))


def test_it_is_the_same_under_gevent(ids: Identities) -> None:
    """In a process of its own, patched before anything else: both ends in greenlets of one thread."""
    program = f"""
from gevent import monkey; monkey.patch_all()
import gevent, socket
from pathlib import Path
from app import tls
from app.sealed import SealedSocket
server = tls.server_context(tls.Files("--text", Path({str(ids.server)!r})))
client = tls.client_context(tls.Files("--text", ca=Path({str(ids.ca)!r})))
ours, theirs = socket.socketpair()
one = SealedSocket(ours, server, server_side=True)
other = SealedSocket(theirs, client, server_hostname="127.0.0.1")
gevent.joinall([gevent.spawn(one.handshake, 10), gevent.spawn(other.handshake, 10)], raise_error=True)
sending = gevent.spawn(one.sendall, b"x" * 1_000_000)
got = 0
while got < 1_000_000:
    got += len(other.recv(65536))
sending.get()
def read():
    try:
        return other.recv(65536)
    except OSError:  # gevent's way to wake a reader
        return "woken"
waiting = gevent.spawn(read)
gevent.sleep(0)
other.shutdown(socket.SHUT_RD)
print(got, other.version, waiting.get(timeout=5))
one.close(), other.close()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.stderr) == ("1000000 TLSv1.3 woken\n", "")
