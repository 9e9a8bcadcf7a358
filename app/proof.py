"""The proof, by which a client and a worker each show that they know the secret, without saying it: lines in, lines out, no sockets.

    C: {"hello": {"nonce": "…"}}      64 hexadecimal digits, drawn anew for each connection
    S: {"hello": {"nonce": "…"}}
    C: {"proof": "…"}                 HMAC-SHA256 of the secret over: label, role, channel, the client's nonce, the server's nonce
    S: {"proof": "…"}

- Both nonces are in both proofs: what was heard on one connection is worth nothing on another.
- The role is in them: nobody's proof can be sent back to him as an answer.
- The channel is in them: under TLS, the fingerprint of the server's certificate as each side sees it (RFC 5929, `tls-server-end-point`).
  Somebody in between who has another certificate, or takes TLS away on one side, has proofs that do not fit.
- The client proves first: who connects without the secret is told nothing that was made with it.
- Every part has a fixed length, so no two messages are made of the same bytes. There is one way and nothing to negotiate, so nothing can be
  talked down.

Who waits for the lines, and how long, is in `app/entrance.py`.
"""

import hmac
import secrets
from typing import Any, Final

from app import wire
from app.errors import BadRequest, Unauthorized
from app.secret import Secret

LONGEST_LINE: Final = 1024
"""In bytes: what is read of somebody who has proven nothing."""

NO_CHANNEL: Final = bytes(32)
"""Of a connection without TLS."""

_LABEL: Final = b"handoff text proof 1\0"
_CLIENT, _SERVER = b"C", b"S"
_NONCE: Final = 32
_HOW: Final = "give it by --secret-file or HANDOFF_SECRET, or to TaskClient as credentials; docs/protocol.md has the lines"


class Prover:
    """The client's side of one connection."""

    def __init__(self, secret: Secret, channel: bytes = NO_CHANNEL) -> None:
        self._secret = secret
        self._channel = channel
        self._nonce = secrets.token_bytes(_NONCE)
        self._theirs = b""

    def hello(self) -> bytes:
        """The first line to send."""
        return _hello(self._nonce)

    def prove(self, line: bytes) -> bytes:
        """The second line to send, in answer to the server's hello. Raises `Unauthorized` where that is none."""
        self._theirs = _nonce(_answered(line, "hello"))
        return _proof_line(self._proof(_CLIENT))

    def check(self, line: bytes) -> None:
        """The server's last line. Raises `Unauthorized` where it does not prove that the server knows the secret."""
        if not hmac.compare_digest(_bytes(_answered(line, "proof")), self._proof(_SERVER)):
            raise Unauthorized("the workers there do not know the secret, or somebody stands in between; nothing was sent to them")

    def _proof(self, role: bytes) -> bytes:
        return _proof(self._secret, role, self._channel, self._nonce, self._theirs)


class Doorkeeper:
    """The worker's side of one connection. Whatever it raises is `Unauthorized`, with what the client can do about it."""

    def __init__(self, secret: Secret, channel: bytes = NO_CHANNEL) -> None:
        self._secret = secret
        self._channel = channel
        self._nonce = secrets.token_bytes(_NONCE)
        self._theirs = b""

    def hello(self, line: bytes) -> bytes:
        """The answer to the client's first line."""
        message = _object(line)
        if "hello" not in message:
            raise Unauthorized(f"who talks to these workers proves first that it knows their secret; {_HOW}")
        self._theirs = _nonce(message["hello"])
        return _hello(self._nonce)

    def welcome(self, line: bytes) -> bytes:
        """The answer to the client's proof: our own."""
        proof = _bytes(_object(line).get("proof"))
        if not hmac.compare_digest(proof, _proof(self._secret, _CLIENT, self._channel, self._theirs, self._nonce)):
            raise Unauthorized("the proof does not fit: both sides want the same secret, and nobody in between who ends their TLS")
        return _proof_line(_proof(self._secret, _SERVER, self._channel, self._theirs, self._nonce))


def _proof(secret: Secret, role: bytes, channel: bytes, clients: bytes, servers: bytes) -> bytes:
    assert len(channel) == len(clients) == len(servers) == _NONCE
    return secret.sign(_LABEL + role + channel + clients + servers)


def _hello(nonce: bytes) -> bytes:
    return wire.encode_line({"hello": {"nonce": nonce.hex()}})


def _proof_line(proof: bytes) -> bytes:
    return wire.encode_line({"proof": proof.hex()})


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; an empty one where it is something else."""
    try:
        message = wire.decode(line)
    except BadRequest:
        return {}
    return message if type(message) is dict else {}


def _answered(line: bytes, key: str) -> Any:
    """What the server has said under the key; where that is an error, the client hears it, shortened."""
    message = _object(line)
    if key in message:
        return message[key]
    error = message.get("error")
    if type(error) is dict and error.get("code") == Unauthorized.code:
        raise Unauthorized(str(error.get("message"))[:300])
    raise Unauthorized("no proof of the secret came: the other side has no secret, or it is no worker")


def _nonce(hello: Any) -> bytes:
    return _bytes(hello.get("nonce") if type(hello) is dict else None)


def _bytes(text: Any) -> bytes:
    """32 bytes of 64 hexadecimal digits."""
    try:
        value = bytes.fromhex(text) if type(text) is str and len(text) == 2 * _NONCE else b""
    except ValueError:
        value = b""
    if len(value) != _NONCE:
        raise Unauthorized(f"a nonce or a proof is {2 * _NONCE} hexadecimal digits")
    return value
