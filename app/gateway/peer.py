"""Who sent an HTTP request, as the application sees it: the body, read when it is asked for, and whether somebody is still there.

How a body is framed is in `app/gateway/chunked.py`; heads and the socket's other requests are in `app/gateway/requests.py`.
"""

import socket
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import gevent

from app.gateway.chunked import CHUNKED, Chunks, Whole
from app.gateway.problems import HttpRefusal
from app.sealed import SealedSocket

PEER: Final = "handoff.peer"
"""Where a `Peer` stands in a WSGI environment."""

_READABLE: Final = 1
_AT_ONCE: Final = 64 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Source(Protocol):
    """What a body is read from: the bytes that came with the head, then the socket's."""

    leftover: bytes

    def take(self, deadline: float) -> bytes:
        """What comes next; nothing at the end of the stream. Raises `TimeoutError` past the deadline (monotonic)."""


class Peer:
    """The sender of one request. `unread`: its body, or some of it, was not read, so that no request can follow."""

    def __init__(self, sock: Any, source: Source, length: int, timeout: float, waits: bool) -> None:
        """`length` is that of `chunked.length_of`; `timeout` in seconds for the body; `waits`: it sends nothing before it is told to."""
        self._sock = sock
        self._source = source
        self._length = length
        self._timeout = timeout
        self._waits = waits
        self._watcher: Any = None
        self.unread = length != 0

    def read_body(self, limit: int) -> bytes:
        """The whole body. Raises `TooLarge` past `limit` bytes, `BadRequest` where it is malformed, `HttpRefusal` where it is late, and
        `ConnectionError` where the peer is gone."""
        if not self.unread:
            return b""
        decoder = Chunks(limit) if self._length == CHUNKED else Whole(self._length, limit)
        try:
            self._feed(decoder)
        except TimeoutError:
            raise HttpRefusal("late", f"the body took more than {self._timeout:g} seconds") from None
        except OSError as error:
            raise ConnectionResetError(f"lost within a body: {error}") from None
        finally:
            self._sock.settimeout(self._timeout)  # of the answer
        body, self._source.leftover = decoder.split()
        self.unread = False
        return body

    def _feed(self, decoder: Chunks | Whole) -> None:
        deadline = time.monotonic() + self._timeout
        if self._waits and not self._source.leftover:
            self._sock.sendall(_CONTINUE)
        while True:
            data = self._source.take(deadline)
            if not data:
                raise ConnectionResetError("the stream ended")
            if decoder.feed(data):
                return
            gevent.sleep(0)  # one that sends all the time has its turn, as everyone has

    def be_patient(self, timeout: float) -> None:
        """From now on, and for this answer, a write may take that many seconds."""
        self._sock.settimeout(timeout)

    def watch(self, gone: Callable[[], None]) -> None:
        """Have `gone` called, in the hub, once nobody waits for the answer any more. A peer that shuts down its own side is gone; of one
        that has sent its next request already, only a write will tell."""
        self._watcher = gevent.get_hub().loop.io(self._sock.fileno(), _READABLE)
        self._watcher.start(self._look, gone)

    def unwatch(self) -> None:
        """Watch no more; call it before the socket is used for anything else."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _peek(self) -> bytes:
        """What has come meanwhile. Under TLS it cannot be looked at without taking it: it is kept for the next request."""
        if not isinstance(self._sock, SealedSocket):
            return bytes(self._sock._sock.recv(1, socket.MSG_PEEK))
        data = self._sock.recv_now(_AT_ONCE)
        self._source.leftover += data
        return data

    def _look(self, gone: Callable[[], None]) -> None:
        try:
            ended = not self._peek()
        except BlockingIOError:
            return
        except OSError:
            ended = True
        self.unwatch()
        if ended:
            gone()
