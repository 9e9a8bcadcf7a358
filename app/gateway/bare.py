"""From the socket that a request came on to the one that a connection reads and writes: without gevent, which would make whoever reads it
wait, and under TLS with nothing left behind that no watcher of the loop would see."""

import _socket
import contextlib
from typing import Any, Final

from app.sealed import SealedSocket

_PLAIN: Final = 8192
_SEALED: Final = 64 * 1024


def at_once(sock: Any) -> int:
    """How many bytes are read from it at a time: few, so that others get their turn; under TLS as many as leave nothing behind."""
    return _SEALED if isinstance(sock, SealedSocket) else _PLAIN


def bare(sock: Any, leftover: bytes) -> tuple[Any, bytes]:
    """The same connection as a non-blocking socket, and `leftover` with what has come since. The given one is not to be used any more."""
    if not isinstance(sock, SealedSocket):
        return _plain(sock), leftover
    with contextlib.suppress(BlockingIOError):
        leftover += sock.recv_now(_SEALED)
    sock.move_to(_plain)
    return sock, leftover


def _plain(sock: Any) -> Any:
    return _socket.socket(sock.family, sock.type, sock.proto, sock.detach())
