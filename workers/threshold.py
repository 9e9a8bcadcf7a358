"""The threshold of the shared port: who comes in by it has shown who he is, where a secret or certificates are demanded. No request is read
here, and nothing is run.

A process's own socket in the run directory has no threshold: the directory is 0700 and the socket 0600, so whoever reaches it is this user,
who can read the secret, and the memory of this process, anyhow.
"""

import contextlib
import logging
import socket as stdlib_socket
import time
from typing import Any, Final

from app.entrance import demand_proof
from app.errors import HandoffError, Unauthorized
from app.messages import refusal
from app.proof import NO_CHANNEL
from app.sealed import SealedSocket
from app.settings import Settings
from app.tls import Files, own_fingerprint, server_context
from workers.parting import DRAIN_FOR, part

log = logging.getLogger(__name__)

MOST_WAITING: Final = 256
"""Who may stand here at once, in one process; one more, and who has stood longest has to go. Whoever can prove it is through at once."""

_MOST_DRAINED: Final = 256 * 1024
_SAY_EVERY: Final = 1.0
"""Seconds between two lines of the log of one kind: a flood of connections is not to be one of lines."""


class Threshold:
    """Of one worker process. Raises `SettingsError` where certificate or key cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.secret
        self._context = None
        self._channel = NO_CHANNEL
        self._tls_within = settings.handshake_timeout
        self._waiting: dict[Any, None] = {}
        self._refused = _Lines(logging.WARNING, "unauthorized: %s at the workers' port: %s (%d since the last such line)")
        self._lost = _Lines(logging.INFO, "not-let-in: %s at the workers' port: %s (%d since the last such line)")
        if settings.text.tls:
            self._context = server_context(Files("--text", *settings.text_tls))
            self._context.num_tickets = 0  # who closes with one unread would reset what he has sent, and kept connections need none
            assert settings.text_cert is not None
            self._channel = own_fingerprint(settings.text_cert)

    def enter(self, sock: Any) -> Any:
        """The socket to converse on; None where that is not to be, and it is closed then. Blocks this greenlet, for a limited time."""
        if self._context is None and self._secret is None:
            return sock
        while len(self._waiting) >= MOST_WAITING:
            self._send_away(next(iter(self._waiting)))
        self._waiting[sock] = None
        try:
            return self._pass(sock)
        except (HandoffError, OSError) as error:
            (self._refused if isinstance(error, Unauthorized) else self._lost).say(sock, error)
            sock.close()
            return None
        finally:
            self._waiting.pop(sock, None)

    def close(self) -> None:
        """Nobody comes in any more."""
        while self._waiting:
            self._send_away(next(iter(self._waiting)))

    def _pass(self, sock: Any) -> Any:
        inside = sock
        if self._context is not None:
            inside = SealedSocket(sock, self._context, server_side=True)
            inside.handshake(self._tls_within)
        if self._secret is not None:
            try:
                demand_proof(inside, self._secret, self._channel)
            except HandoffError as error:
                _refuse(inside, error)
                raise
        inside.settimeout(None)
        return inside

    def _send_away(self, sock: Any) -> None:
        """Whoever waits for it to say something sees its end."""
        del self._waiting[sock]
        with contextlib.suppress(OSError):
            sock.shutdown(stdlib_socket.SHUT_RDWR)


class _Lines:
    """Lines of the log of one kind. Nothing of what was sent goes into them, only what was wrong with it."""

    def __init__(self, level: int, text: str) -> None:
        self._level = level
        self._text = text
        self._said_at = float("-inf")
        self._unsaid = 0

    def say(self, sock: Any, error: HandoffError | OSError) -> None:
        self._unsaid += 1
        now = time.monotonic()
        if now - self._said_at >= _SAY_EVERY:
            log.log(self._level, self._text, _peer(sock), error, self._unsaid)
            self._said_at, self._unsaid = now, 0


def _refuse(inside: Any, error: HandoffError) -> None:
    with contextlib.suppress(OSError):  # who has gone is not told
        inside.settimeout(DRAIN_FOR)
        inside.sendall(refusal(Unauthorized(error.message)) + b"\n")
        part(inside, _MOST_DRAINED)


def _peer(sock: Any) -> str:
    try:
        return "{}:{}".format(*sock.getpeername()) if sock.family != stdlib_socket.AF_UNIX else "somebody"
    except (OSError, IndexError):
        return "somebody who has left"
