"""A socket that speaks TLS, with as much of a socket's ways as our connections use; what passes through it is not known here.

Not `ssl.SSLSocket`, for three reasons. Its `shutdown` takes the TLS away, so that what is sent afterwards leaves in clear. Its `send` waits
under gevent, and an outbox writes in the hub, where nothing may wait. And what is here is to do the same with gevent and without. So the
TLS machine runs in memory (`SSLObject` between two `MemoryBIO`s), and the socket below is read and written as any other.

Contexts are made in `app/tls.py`. Import it after the patching, as that.
"""

import contextlib
import os
import socket
import ssl
import time
from typing import Any

from app.errors import HandoffError, Unauthorized, Unavailable

_RECV = 32 * 1024
"""Sealed bytes that are read at once: with what was left of a record they make less than the 64 KiB that a reader takes."""

_AT_ONCE = 256 * 1024
"""Bytes that are sealed at once: with what they grow by they wait in memory while the socket does not take them."""

_NO_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""What OpenSSL's reasons have in them where it is a certificate that was not liked, by us or by the other side."""


class SealedSocket:
    """TLS over `sock`, which is connected and belongs to this object from now on. Nothing is said before `handshake`."""

    def __init__(self, sock: Any, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None) -> None:
        self._socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname)
        self._sealed = b""
        self._owed = 0
        self._over = False
        self._parted = False

    def handshake(self, within: float) -> None:
        """Agree with the other side, in at most `within` seconds.

        Raises `Unauthorized` where a certificate, or the lack of one, is the reason; `Unavailable` where the other side speaks no TLS that
        is taken here, leaves, or is not done in time. Close it then.
        """
        until, before = time.monotonic() + within, self._socket.gettimeout()
        try:
            while not self._agreed(until):
                self._socket.settimeout(_left(until))
                self._take()
        except TimeoutError:
            raise Unavailable(f"the TLS handshake was not done within {within:g} s") from None
        except ssl.SSLError as error:
            self._send_sealed_quietly()  # the alert that says why
            raise _reason(error) from error
        except OSError as error:
            raise Unavailable(f"the connection was lost in the TLS handshake: {error}") from error
        self._socket.settimeout(before)

    @property
    def version(self) -> str | None:
        """As `TLSv1.3`."""
        return self._tls.version()

    @property
    def peer_certificate(self) -> bytes | None:
        """What the other side has shown, in DER."""
        return self._tls.getpeercert(binary_form=True)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """At most `size` bytes, blocking as the socket below does; none at the end. Raises `OSError`, as a socket does.

        With 64 KiB or more nothing stays behind that has come: who waits for the descriptor to be readable misses nothing. With
        `MSG_PEEK` it says only whether there is something. After a goodbye of ours, what comes is drained, not unsealed.
        """
        if self._parted:
            return bytes(self._socket.recv(size, flags))
        if flags:
            return b"?" if self._incoming.pending or self._tls.pending() or self._socket.recv(1, flags) else b""
        while not (data := self._read(size)) and not self._over:
            self._send_sealed()  # an answer to a change of keys, where there is one
            self._take()
        return data

    def send_now(self, data: bytes | memoryview) -> int:
        """Seal and send; how many bytes of `data` have left. Never blocks where the descriptor does not: raises `BlockingIOError` where
        nothing is taken now. Call it again then, with data that begins with the same bytes, which are sealed already."""
        if not self._owed:
            self._owed = self._tls.write(data[:_AT_ONCE])
        if not self._send_sealed():
            raise BlockingIOError
        sent, self._owed = self._owed, 0
        return sent

    def sendall(self, data: bytes) -> None:
        """All of it, blocking as the socket below does. Not to be mixed with a `send_now` that has not been finished."""
        for start in range(0, len(data), _AT_ONCE):
            self._tls.write(data[start : start + _AT_ONCE])
            self._socket.sendall(self._all_sealed())

    def shutdown(self, how: int) -> None:
        """As a socket's; who will hear no more is told so under TLS first, so that nobody can cut the stream short unnoticed."""
        if how != socket.SHUT_RD and not self._parted:
            with contextlib.suppress(ssl.SSLError):  # that the other side has not said it as well is one
                self._tls.unwrap()
            self._send_sealed_quietly()
            self._parted = True
        self._socket.shutdown(how)

    def close(self) -> None:
        """Let the socket go."""
        self._socket.close()

    def fileno(self) -> int:
        """The socket's. That it is readable does not mean yet that `recv` has something."""
        return int(self._socket.fileno())

    def settimeout(self, timeout: float | None) -> None:
        """As a socket's."""
        self._socket.settimeout(timeout)

    def gettimeout(self) -> float | None:
        """As a socket's."""
        timeout: float | None = self._socket.gettimeout()
        return timeout

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self._socket.setblocking(flag)

    def getpeername(self) -> Any:
        """As a socket's."""
        return self._socket.getpeername()

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """As a socket's."""
        self._socket.setsockopt(level, option, value)

    def _agreed(self, until: float) -> bool:
        """One step of the handshake, and what it has to say; whether that was the last one."""
        try:
            self._tls.do_handshake()
            agreed = True
        except ssl.SSLWantReadError:
            agreed = False
        if self._outgoing.pending:
            self._socket.settimeout(_left(until))
            self._socket.sendall(self._all_sealed())
        return agreed

    def _take(self) -> None:
        data = self._socket.recv(_RECV)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _read(self, size: int) -> bytes:
        """What has come and is whole, record by record; nothing where more is wanted, or at the end."""
        parts: list[bytes] = []
        while size > 0 and not self._over:
            try:
                part = self._tls.read(size)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                part = b""
            self._over = not part
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _all_sealed(self) -> bytes:
        sealed, self._sealed = self._sealed + self._outgoing.read(), b""
        return sealed

    def _send_sealed(self) -> bool:
        """Whether all that is sealed has left, as far as it goes without blocking."""
        self._sealed = self._all_sealed()
        while self._sealed:
            try:
                sent = os.write(self._socket.fileno(), self._sealed)
            except BlockingIOError:
                return False
            self._sealed = self._sealed[sent:]
        return True

    def _send_sealed_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self._send_sealed()


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reason(error: ssl.SSLError) -> HandoffError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unauthorized(f"the certificate of the other side is not accepted: {error.verify_message}")
    reason = (error.reason or "the other side left").replace("_", " ").lower()
    if any(word in (error.reason or "") for word in _NO_CERTIFICATE):
        return Unauthorized(f"no TLS without a certificate that both sides accept: {reason}")
    return Unavailable(f"no TLS with the other side: {reason}")
