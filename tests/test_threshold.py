"""The workers' port with a secret, or TLS, or both: who is let in, and what comes of trying without."""

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.address import Address
from app.client import TaskClient, TaskConnection
from app.entrance import Credentials
from app.errors import Unauthorized, Unavailable
from app.proof import Prover
from app.sealed import SealedSocket
from app.secret import Secret
from app.tls import Files, client_context, server_context
from tests.byhand import Gateway, own_sockets
from tests.certificates import Identities, make_identities
from tests.effects import effects
from tests.harness import Server, TextClient
from workers.threshold import MOST_WAITING

WORD = "correct-horse-battery-staple-0123456789"
SECRET, WRONG = Secret(WORD.encode()), Secret(b"another-horse-battery-staple-012345")
LATE = 8.0
"""Seconds after which 2 are long over, on a machine that does something else as well."""


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return make_identities(tmp_path_factory.mktemp("ids"))


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "secret"
    path.write_text(WORD + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def server(secret_file: Path) -> Iterator[Server]:
    """One worker that wants the secret."""
    running = Server("worker", "--secret-file", str(secret_file), "--tasks", "tests.sample_tasks")
    yield running
    running.clean()


@pytest.fixture(scope="module")
def sealed(secret_file: Path, ids: Identities) -> Iterator[Server]:
    """One that wants it under TLS."""
    flags = ("--text", "tls://127.0.0.1:0", "--text-cert", str(ids.server), "--handshake-timeout", "1")
    running = Server("worker", *flags, "--secret-file", str(secret_file))
    yield running
    running.clean()


def address(server: Server) -> Address:
    return Address.parse(server._address("workers listening on").removeprefix("text://"))


def plain(server: Server) -> tuple[str, int]:
    return address(server).host, address(server).port


def unauthorized(client: TextClient) -> str:
    """The message of the refusal that comes next and last."""
    answer = client.receive()
    assert answer["error"]["code"] == "unauthorized"
    assert client.receive_line() == b""
    return str(answer["error"]["message"])


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None], tls: bool = False) -> Iterator[Address]:
    """Somebody whom a client takes for a worker; serves one connection."""

    def accept() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield Address("127.0.0.1", listener.getsockname()[1], tls=tls)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# The secret.


def test_who_knows_the_secret_is_served(server: Server) -> None:
    client = TaskClient(str(address(server)), credentials=Credentials(SECRET))
    assert [client.call("echo", {"n": n}) for n in range(3)] == [{"n": n} for n in range(3)]
    assert client.describe()["siblings"] == 1
    client.close()


def test_a_client_with_another_secret_is_refused(server: Server) -> None:
    with pytest.raises(Unauthorized, match=r"127\.0\.0\.1:\d+: the proof does not fit"):
        TaskConnection(address(server), credentials=Credentials(WRONG))


REQUESTS = (
    {"function": "mark", "args": {}},
    {"id": "a", "function": "mark"},
    {"describe": True},
    {"ping": 1},
    {"claim": [], "journal": "a" * 32},
    {"leaving": True},
    {"id": "a", "cancel": True},
    {"hello": True},
    {"proof": "00" * 32},
    {"hello": {"nonce": "00"}},
)


@pytest.mark.parametrize("request_", REQUESTS, ids=json.dumps)
def test_nothing_is_answered_before_the_proof(server: Server, request_: dict[str, Any]) -> None:
    with TextClient(plain(server)) as client:
        client.send(request_)
        message = unauthorized(client)
        assert "--secret-file" in message or "hexadecimal" in message, "it says what to do"
    assert effects(server) == []


def test_nothing_is_run_that_was_sent_along_with_a_proof(server: Server) -> None:
    """Whoever does not wait for the workers' proof has not made sure whom he talks to."""
    for rest in (b"", b'{"function":"mark"}\n'):
        with TextClient(plain(server)) as client:
            prover = Prover(SECRET)
            client.send(prover.hello())
            client.send(prover.prove(client.receive_line()) + rest)
            if rest:
                unauthorized(client)
            else:
                prover.check(client.receive_line())
                assert client.ask({"ping": 1}) == {"pong": 1}
    assert effects(server) == []


def test_nc_is_told_what_to_do(server: Server) -> None:
    with TextClient(plain(server)) as client:
        client.send({"function": "echo", "args": {"text": "hi"}})
        client.half_close()
        assert "--secret-file or HANDOFF_SECRET" in unauthorized(client)


def test_a_whole_conversation_that_was_heard_is_worth_nothing_the_second_time(server: Server) -> None:
    prover = Prover(SECRET)
    heard = [prover.hello()]
    with TextClient(plain(server)) as client:
        client.send(heard[0])
        heard.append(prover.prove(client.receive_line()))
        client.send(heard[1])
        prover.check(client.receive_line())
    with TextClient(plain(server)) as client:
        client.send(heard[0])
        client.receive()
        client.send(heard[1])
        assert "does not fit" in unauthorized(client)


def test_what_one_connection_asks_cannot_be_answered_with_another(server: Server) -> None:
    """Somebody without the secret has each of two connections answer the other's question."""
    with TextClient(plain(server)) as one, TextClient(plain(server)) as other:
        challenge = one.ask({"hello": {"nonce": "11" * 32}})
        answer = other.ask(challenge)
        one.send({"proof": answer["hello"]["nonce"]})
        other.send({"proof": challenge["hello"]["nonce"]})
        assert "does not fit" in unauthorized(one)
        assert "does not fit" in unauthorized(other)


def test_a_clients_own_words_are_no_proof_of_a_server() -> None:
    def reflect(connection: socket.socket) -> None:
        while said := connection.recv(4096):
            connection.sendall(said)

    with listening(reflect) as there, pytest.raises(Unauthorized, match="do not know the secret"):
        TaskConnection(there, credentials=Credentials(SECRET))


def test_a_client_with_a_secret_says_nothing_to_workers_without_one() -> None:
    """It is not to be talked into going on in the old way."""
    said: list[bytes] = []

    def answer_as_a_worker_without(connection: socket.socket) -> None:
        while line := connection.recv(4096):
            said.append(line)
            connection.sendall(b'{"error":{"code":"bad_request","message":"no such request"}}\n')

    with listening(answer_as_a_worker_without) as there:
        client = TaskClient(str(there), credentials=Credentials(SECRET))
        with pytest.raises(Unauthorized, match="no proof"):
            client.call("echo", {"a password": "hunter2"})
    assert [list(json.loads(line)) for line in said] == [["hello"]]


def test_a_client_waits_two_seconds_for_the_proof_and_no_more() -> None:
    def say_nothing(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    began = time.monotonic()
    with listening(say_nothing) as there, pytest.raises(Unavailable, match="within 2 s"):
        TaskConnection(there, timeout=60, credentials=Credentials(SECRET))
    assert 1.9 < time.monotonic() - began < LATE


@pytest.mark.parametrize("said", [0, 6, 100], ids=["nothing", "half a line", "hello alone"])
def test_who_stands_still_is_sent_away(server: Server, said: int) -> None:
    began = time.monotonic()
    with TextClient(plain(server)) as client:
        client.send(Prover(SECRET).hello()[:said])
        if said == 100:
            client.receive()
        assert "within 2 s" in unauthorized(client)
    assert 1.9 < time.monotonic() - began < LATE


def test_a_byte_at_a_time_does_not_make_it_longer(server: Server) -> None:
    began = time.monotonic()
    with TextClient(plain(server)) as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - began < LATE:
            client.send(b" ")
            time.sleep(0.05)
    assert 1.9 < time.monotonic() - began < LATE


def test_a_huge_line_is_refused_long_before_its_end(server: Server) -> None:
    with TextClient(plain(server)) as client:
        client.send(b"x" * 100_000)
        assert "1024" in unauthorized(client)
    with TextClient(plain(server)) as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(4096):
            client.send(b"x" * 65536)
        pytest.fail("256 MiB were read of somebody who has proven nothing")


def test_a_crowd_that_stands_still_does_not_keep_others_out(server: Server) -> None:
    """Whoever has stood longest has to go; who can prove it is through at once."""
    with contextlib.ExitStack() as crowd:
        standing = [crowd.enter_context(TextClient(plain(server))) for _ in range(MOST_WAITING + 50)]
        client = TaskClient(str(address(server)), credentials=Credentials(SECRET))
        assert client.call("echo") == {}
        assert standing[0].receive_line() == b""
        client.close()


def test_who_leaves_in_the_middle_does_no_harm(server: Server) -> None:
    for said in (b"", b'{"hello"', Prover(SECRET).hello()):
        client = socket.create_connection(plain(server))
        client.sendall(said)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # as a reset
    with TaskConnection(address(server), credentials=Credentials(SECRET)) as connection:
        assert connection.call("echo") == {}


def test_the_sockets_in_the_run_directory_are_for_this_user_alone_and_want_no_proof(server: Server) -> None:
    (own,) = own_sockets(server.data_dir)
    assert Path(own).stat().st_mode & 0o777 == 0o600
    assert Path(own).parent.stat().st_mode & 0o777 == 0o700
    with Gateway(own) as gateway:
        assert gateway.description["siblings"] == 1


def test_a_unix_socket_that_was_asked_for_wants_the_proof(secret_file: Path, tmp_path: Path) -> None:
    """Whoever gives it a place of its own may mean others to reach it."""
    where = f"unix:{tmp_path}/text.sock"
    server = Server("worker", "--text", where, "--secret-file", str(secret_file))
    try:
        with TextClient(f"{tmp_path}/text.sock") as client:
            client.send({"ping": 1})
            unauthorized(client)
        with TaskConnection(Address.parse(where), credentials=Credentials(SECRET)) as connection:
            assert connection.call("echo") == {}
    finally:
        server.clean()


def test_a_flood_of_refusals_is_no_flood_of_lines(server: Server) -> None:
    before = server.log().count("unauthorized:")
    began = time.monotonic()
    for _ in range(100):
        with TextClient(plain(server)) as client:
            client.send(b'{"hello":{"nonce":"\\u001b[2J\\nWARNING all is well"}}\n')
            unauthorized(client)
    lines = server.log().count("unauthorized:") - before
    assert lines <= time.monotonic() - began + 1
    assert "all is well" not in server.log()


# TLS.


def conversation(there: Address, ids: Identities, **options: Any) -> TaskConnection:
    credentials = Credentials(options.get("secret", SECRET), Files("--text", options.get("cert"), None, options.get("ca", ids.ca)))
    return TaskConnection(there, credentials=credentials)


def test_the_secret_and_tasks_go_under_tls(sealed: Server, ids: Identities) -> None:
    assert str(address(sealed)).startswith("tls://")
    with conversation(address(sealed), ids) as connection:
        assert connection.call("echo", {"text": "x" * 300_000}) == {"text": "x" * 300_000}
        assert [event["event"] for event in connection.events("countdown", {"start": 1, "interval": 0})][-1] == "succeeded"


def test_many_lines_at_once_are_all_answered_under_tls(sealed: Server, ids: Identities) -> None:
    with conversation(address(sealed), ids) as connection:
        text = "y" * 20_000
        for number in range(100):
            connection.send({"id": f"t{number}", "function": "echo", "args": {"text": text}, "events": "final"})
        answers = [connection.receive(20) for _ in range(100)]
        assert {answer["id"] for answer in answers} == {f"t{number}" for number in range(100)}
        assert all(answer["result"] == {"text": text} for answer in answers)


def test_the_wrong_secret_is_refused_under_tls_too(sealed: Server, ids: Identities) -> None:
    with pytest.raises(Unauthorized, match="does not fit"):
        conversation(address(sealed), ids, secret=WRONG)


def test_a_client_that_does_not_know_the_authority_says_nothing(sealed: Server, ids: Identities) -> None:
    with pytest.raises(Unauthorized, match="certificate of the other side is not accepted"):
        conversation(address(sealed), ids, ca=None)


@pytest.mark.parametrize(
    ("certificate", "why"), [("expired", "expired"), ("elsewhere", "not valid for"), ("stranger", "self-signed|issuer")]
)
def test_a_server_with_the_wrong_certificate_is_told_nothing(ids: Identities, certificate: str, why: str) -> None:
    said: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        end = SealedSocket(connection, server_context(Files("--text", getattr(ids, certificate))), server_side=True)
        with contextlib.suppress(Unauthorized, Unavailable):
            end.handshake(LATE)
            said.append(end.recv(65536))

    with listening(serve, tls=True) as there, pytest.raises(Unauthorized, match=why):
        conversation(there, ids)
    assert said == []


@pytest.mark.parametrize("said", [b'{"function":"echo"}\n', b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 70_000])
def test_a_client_without_tls_gets_nothing_from_a_port_with_it(sealed: Server, said: bytes) -> None:
    with TextClient(plain(sealed)) as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.send(said)
        assert b"{" not in client.receive_line(LATE), "an answer in clear"


def test_a_client_with_tls_is_not_talked_out_of_it(server: Server, ids: Identities) -> None:
    with pytest.raises(Unavailable, match="no TLS with the other side"):
        conversation(address(server)._replace(tls=True), ids)


def test_who_is_slow_to_agree_on_tls_is_sent_away(sealed: Server) -> None:
    began = time.monotonic()
    with TextClient(plain(sealed)) as client:
        client.send(b"\x16\x03\x01")
        assert client.receive_line(LATE) == b""
    assert time.monotonic() - began < LATE


def test_old_versions_are_not_spoken(sealed: Server, ids: Identities) -> None:
    old = client_context(Files("--text", ca=ids.ca))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    end = SealedSocket(socket.create_connection(plain(sealed)), old, server_hostname="127.0.0.1")
    with pytest.raises(Unavailable, match="version"):
        end.handshake(LATE)
    end.close()


def test_a_first_request_that_comes_with_the_end_of_the_handshake_is_read(ids: Identities) -> None:
    """Under TLS 1.3 a client may say both in one go; nothing would become readable once more."""
    server = Server("worker", "--text", "tls://127.0.0.1:0", "--text-cert", str(ids.server))
    try:
        for _ in range(10):
            with conversation(address(server), ids, secret=None) as connection:
                assert connection.call("echo", timeout=10) == {}
    finally:
        server.clean()


# Somebody in between, who passes on what each side says.


def pass_on(target: tuple[str, int], inward: Callable[[Any], Any], outward: Callable[[Any], Any]) -> Callable[[socket.socket], None]:
    """`inward` and `outward` make of a connection what it becomes: one with TLS, say."""

    def serve(connection: socket.socket) -> None:
        with socket.create_connection(target) as onward:
            inner, outer = inward(connection), outward(onward)
            while said := inner.recv(65536):
                outer.sendall(said)
                inner.sendall(outer.recv(65536))

    return serve


def as_it_is(sock: Any) -> Any:
    return sock


def as_server(cert: Path) -> Callable[[Any], Any]:
    def wrap(sock: Any) -> Any:
        end = SealedSocket(sock, server_context(Files("--text", cert)), server_side=True)
        end.handshake(LATE)
        return end

    return wrap


def as_client(ca: Path) -> Callable[[Any], Any]:
    def wrap(sock: Any) -> Any:
        end = SealedSocket(sock, client_context(Files("--text", ca=ca)), server_hostname="127.0.0.1")
        end.handshake(LATE)
        return end

    return wrap


def test_the_one_in_between_is_real(sealed: Server, ids: Identities) -> None:
    """With the workers' own key, which nobody else has, it does get through: so the tests below end for the reason that they name."""
    with (
        listening(pass_on(plain(sealed), as_server(ids.server), as_client(ids.ca)), tls=True) as there,
        conversation(there, ids) as connection,
    ):
        assert connection.request({"ping": 1}) == {"pong": 1}


def test_another_certificate_for_the_same_name_does_not_get_in_between(sealed: Server, ids: Identities) -> None:
    """Its certificate is good; but the proofs are bound to the one that each side has seen."""
    with (
        listening(pass_on(plain(sealed), as_server(ids.impostor), as_client(ids.ca)), tls=True) as there,
        pytest.raises(Unauthorized, match="does not fit"),
    ):
        conversation(there, ids)


def test_tls_cannot_be_taken_off_on_the_clients_side(sealed: Server, ids: Identities) -> None:
    """The client was told an address without `tls://`; somebody speaks TLS to the workers in its place."""
    with (
        listening(pass_on(plain(sealed), as_it_is, as_client(ids.ca))) as there,
        pytest.raises(Unauthorized, match="does not fit"),
    ):
        conversation(there, ids)


def test_tls_cannot_be_taken_off_on_the_workers_side(server: Server, ids: Identities) -> None:
    with (
        listening(pass_on(plain(server), as_server(ids.impostor), as_it_is), tls=True) as there,
        pytest.raises(Unauthorized, match="does not fit"),
    ):
        conversation(there, ids)
