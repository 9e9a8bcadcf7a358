"""How a connection to a worker's Text port is entered: TLS where the address says so, then the proof where there is a secret.

Both sides of the proof wait here for each other's lines, blocking, with one limit for all of it; what the lines say is in `app/proof.py`.
`Credentials` are a client's; what a worker demands of whom is in `workers/threshold.py`. Works with and without gevent.
"""

import ssl
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from app.address import Address
from app.errors import HandoffError, Unauthorized, Unavailable
from app.proof import LONGEST_LINE, NO_CHANNEL, Doorkeeper, Prover
from app.sealed import SealedSocket
from app.secret import Secret, read_secret
from app.tls import Files, client_context, fingerprint

PROOF_WITHIN: Final = 2.0
"""Seconds for all of the proof, whichever side one is on."""

TLS_WITHIN: Final = 10.0
"""Seconds for the TLS handshake, on the client's side."""


_RECV: Final = 64 * 1024
"""All that a sealed socket may have: what stayed behind there would not make the descriptor readable again."""


class Credentials:
    """What a client shows to workers, and demands of them. One serves any number of connections."""

    def __init__(self, secret: Secret | None = None, files: Files = Files("--text")) -> None:  # noqa: B008  # it is frozen
        self._secret = secret
        self._files = files

    @classmethod
    def from_files(cls, *, secret: str = "", ca: str = "", cert: str = "", key: str = "") -> Self:
        """Of paths: the shared secret (mode 0600); the authority of the workers' certificates (else those that the system knows); a
        certificate of one's own and its key, where the workers want one. Raises `SettingsError` where a file cannot be used."""
        paths = (Path(name) if name else None for name in (cert, key, ca))
        return cls(read_secret(Path(secret), "secret") if secret else None, Files("tls", *paths))

    def prepare(self, addresses: Iterable[Address]) -> Self:
        """Read the files now where one of these addresses wants them. Raises `SettingsError` where one cannot be used."""
        if any(address.tls for address in addresses):
            assert self._context
        return self

    def enter(self, sock: Any, address: Address) -> Any:
        """The socket to go on with, connected to `address`, once both sides know who the other is.

        Raises `Unauthorized` where one of them does not believe the other, `Unavailable` where it is not done in time; close `sock` then.
        """
        before = sock.gettimeout()
        try:
            entered = self._enter(sock, address)
        except HandoffError as error:
            raise type(error)(f"{address}: {error.message}") from error
        entered.settimeout(before)
        return entered

    def _enter(self, sock: Any, address: Address) -> Any:
        channel = NO_CHANNEL
        if address.tls:
            sock = SealedSocket(sock, self._context, server_hostname=address.host)
            sock.handshake(TLS_WITHIN)
            channel = fingerprint(sock.peer_certificate)
        if self._secret is not None:
            prove(sock, self._secret, channel)
        return sock

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return client_context(self._files)


def prove(sock: Any, secret: Secret, channel: bytes = NO_CHANNEL) -> None:
    """The client's side. Raises `Unauthorized`, or `Unavailable` where the other side leaves or takes too long."""
    lines, prover = _Lines(sock), Prover(secret, channel)
    lines.send(prover.hello())
    lines.send(prover.prove(lines.receive()))
    prover.check(lines.receive())


def demand_proof(sock: Any, secret: Secret, channel: bytes = NO_CHANNEL) -> None:
    """The worker's side; raises likewise, and has sent no more than its own nonce then."""
    lines, doorkeeper = _Lines(sock), Doorkeeper(secret, channel)
    lines.send(doorkeeper.hello(lines.receive()))
    lines.send(doorkeeper.welcome(lines.receive()))


class _Lines:
    """A socket, line by line, until the time is up."""

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._until = time.monotonic() + PROOF_WITHIN

    def send(self, line: bytes) -> None:
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(line)
        except OSError as error:
            raise _lost(error) from error

    def receive(self) -> bytes:
        """The next line, and nothing after it: each side waits for the other's answer before it says more."""
        line = b""
        while not line.endswith(b"\n") and len(line) <= LONGEST_LINE:
            line += self._receive()
        if len(line) > LONGEST_LINE or line.count(b"\n") > 1:
            raise Unauthorized(f"the secret is proven before anything else is said, in lines of at most {LONGEST_LINE} bytes")
        return line

    def _receive(self) -> bytes:
        try:
            self._socket.settimeout(self._left())
            data: bytes = self._socket.recv(_RECV)
        except OSError as error:
            raise _lost(error) from error
        if not data:
            raise Unavailable("the connection was closed before the secret was proven")
        return data

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def _lost(error: OSError) -> Unavailable:
    if isinstance(error, TimeoutError):
        return Unavailable(f"the secret was not proven within {PROOF_WITHIN:g} s")
    return Unavailable(f"the connection was lost before the secret was proven: {error}")
