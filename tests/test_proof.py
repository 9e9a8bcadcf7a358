"""The proof of the secret, line by line, and what somebody without the secret may try with what was heard."""

import hashlib
import hmac
import json
import random
import re

import pytest

from app.errors import Unauthorized
from app.proof import NO_CHANNEL, Doorkeeper, Prover
from app.secret import Secret

OURS, OTHER = Secret(b"a" * 32), Secret(b"b" * 32)
CERTIFICATE = hashlib.sha256(b"a certificate").digest()


def agree(prover: Prover, doorkeeper: Doorkeeper) -> list[bytes]:
    """All four lines."""
    hello = prover.hello()
    answer = doorkeeper.hello(hello)
    proof = prover.prove(answer)
    welcome = doorkeeper.welcome(proof)
    prover.check(welcome)
    return [hello, answer, proof, welcome]


@pytest.mark.parametrize("channel", [NO_CHANNEL, CERTIFICATE])
def test_who_knows_the_secret_is_let_in(channel: bytes) -> None:
    lines = agree(Prover(OURS, channel), Doorkeeper(OURS, channel))
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)


def test_nothing_is_said_twice() -> None:
    """Nonces are drawn for each connection, so no line is ever the same as another."""
    lines = [line for _ in range(50) for line in agree(Prover(OURS), Doorkeeper(OURS))]
    assert len(set(lines)) == len(lines)


def test_a_client_with_another_secret_is_refused() -> None:
    prover, doorkeeper = Prover(OTHER), Doorkeeper(OURS)
    with pytest.raises(Unauthorized, match="does not fit"):
        doorkeeper.welcome(prover.prove(doorkeeper.hello(prover.hello())))


def test_a_server_with_another_secret_is_not_believed() -> None:
    """It lets everybody in, and says what it can make up."""
    prover, impostor = Prover(OURS), Doorkeeper(OTHER)
    prover.prove(impostor.hello(prover.hello()))
    for made_up in (line("proof", "00" * 32), line("proof", hashlib.sha256(b"").hexdigest()), b'{"proof":true}\n', b'{"pong":1}\n'):
        with pytest.raises(Unauthorized):
            prover.check(made_up)


def line(key: str, value: object) -> bytes:
    return json.dumps({key: value}).encode() + b"\n"


def test_what_was_heard_once_is_worth_nothing_on_another_connection() -> None:
    hello, _, proof, welcome = agree(Prover(OURS), Doorkeeper(OURS))
    doorkeeper = Doorkeeper(OURS)
    doorkeeper.hello(hello)
    with pytest.raises(Unauthorized):
        doorkeeper.welcome(proof)
    prover = Prover(OURS)
    prover.prove(Doorkeeper(OURS).hello(prover.hello()))
    with pytest.raises(Unauthorized):
        prover.check(welcome)


def test_a_clients_proof_sent_back_to_it_is_no_servers_proof() -> None:
    """Somebody who knows nothing answers with the client's own nonce and the client's own proof."""
    prover = Prover(OURS)
    proof = prover.prove(prover.hello())
    with pytest.raises(Unauthorized):
        prover.check(proof)


def test_a_second_client_cannot_be_made_to_answer_for_the_first() -> None:
    """The server's challenge is handed to a client that was lured elsewhere: only on that client's own nonce does its proof fit."""
    doorkeeper, lured = Doorkeeper(OURS), Prover(OURS)
    challenge = doorkeeper.hello(line("hello", {"nonce": "11" * 32}))
    with pytest.raises(Unauthorized):
        doorkeeper.welcome(lured.prove(challenge))


def test_somebody_in_between_with_another_certificate_has_a_proof_that_does_not_fit() -> None:
    """All lines are passed on unchanged; but each side sees another certificate, or one of them none."""
    others = hashlib.sha256(b"another certificate").digest()
    for theirs in (others, NO_CHANNEL):
        with pytest.raises(Unauthorized):
            agree(Prover(OURS, theirs), Doorkeeper(OURS, CERTIFICATE))
    with pytest.raises(Unauthorized):
        agree(Prover(OURS, CERTIFICATE), Doorkeeper(OURS, NO_CHANNEL))


def test_the_client_shows_no_more_than_its_nonce_to_who_does_not_answer_as_a_worker_does() -> None:
    for answer in (b'{"describe":{}}\n', b'{"error":{"code":"bad_request","message":"x"}}\n', b"null\n", b"\n", b'{"hello":{}}\n'):
        with pytest.raises(Unauthorized):
            Prover(OURS).prove(answer)


def test_what_the_server_says_against_it_is_heard() -> None:
    with pytest.raises(Unauthorized, match="no entry"):
        Prover(OURS).check(b'{"error":{"code":"unauthorized","message":"no entry"}}\n')


GARBAGE = (
    b"",
    b"\n",
    b"null\n",
    b"[]\n",
    b'{"ping":1}\n',
    b'{"hello":true}\n',
    b'{"hello":{"nonce":1}}\n',
    b'{"hello":{"nonce":""}}\n',
    line("hello", {"nonce": "1" * 63}),
    line("hello", {"nonce": "zz" * 32}),
    line("hello", {"nonce": " " * 64}),
    line("hello", {"nonce": "１" * 64}),
    line("hello", {"nonce": "11" * 33}),
    b"\xff" * 64,
    b"[" * 1000,
)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_refused_and_nothing_else_goes_wrong(garbage: bytes) -> None:
    with pytest.raises(Unauthorized) as caught:
        Doorkeeper(OURS).hello(garbage)
    assert caught.value.message.isprintable()
    doorkeeper = Doorkeeper(OURS)
    doorkeeper.hello(Prover(OURS).hello())
    with pytest.raises(Unauthorized):
        doorkeeper.welcome(garbage.replace(b"hello", b"proof"))


def test_a_proof_with_one_bit_changed_is_refused() -> None:
    for _ in range(200):
        prover, doorkeeper = Prover(OURS), Doorkeeper(OURS)
        proof = bytearray.fromhex(json.loads(prover.prove(doorkeeper.hello(prover.hello())))["proof"])
        proof[random.randrange(32)] ^= 1 << random.randrange(8)
        with pytest.raises(Unauthorized):
            doorkeeper.welcome(line("proof", proof.hex()))


def test_the_server_says_nothing_that_was_made_with_the_secret_before_the_client_has_proven_it() -> None:
    """Two servers with different secrets cannot be told apart from their first answers, but by the nonce that is drawn."""
    for secret in (OURS, OTHER):
        assert re.fullmatch(rb'{"hello":{"nonce":"[0-9a-f]{64}"}}\n', Doorkeeper(secret).hello(Prover(OURS).hello()))


def test_it_is_made_as_the_page_about_the_protocol_says() -> None:
    hello, answer, proof, welcome = map(json.loads, agree(Prover(OURS, CERTIFICATE), Doorkeeper(OURS, CERTIFICATE)))
    clients, servers = (bytes.fromhex(message["hello"]["nonce"]) for message in (hello, answer))
    for role, message in ((b"C", proof), (b"S", welcome)):
        signed = b"handoff text proof 1\0" + role + CERTIFICATE + clients + servers
        assert message == {"proof": hmac.new(b"a" * 32, signed, "sha256").hexdigest()}


def test_the_comparison_in_constant_time_alone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def everything_fits(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr(hmac, "compare_digest", everything_fits)
    agree(Prover(OURS), Doorkeeper(OTHER))
    assert [one != other for one, other in compared] == [True, True]
