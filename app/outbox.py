"""Bytes on their way out of one socket: queued by anyone without blocking, written once a turn of the loop. What they mean is not known
here.

A writer exists only while the socket does not take what is queued: a watcher of the loop, not a greenlet.
"""

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from gevent.event import Event

from app.errors import Unavailable
from app.sealed import SealedSocket
from app.turn import Turn

_WRITABLE = 2
_MOST_AT_ONCE = 256 * 1024


class Outbox:
    """The way out of one socket. `unsent` is in bytes; `progress_at` is when bytes last left (or began to wait), by the monotonic clock."""

    __slots__ = (
        "_chunks",
        "_closed",
        "_drained",
        "_fd",
        "_loop",
        "_on_broken",
        "_schedule",
        "_sealed",
        "_watcher",
        "progress_at",
        "unsent",
    )

    def __init__(self, sock: Any, turn: Turn, loop: Any, on_broken: Callable[[], None], *, patient: bool = False) -> None:
        """`on_broken` is called once where the socket takes no more; `patient`: a busy loop may hold writes back for a moment."""
        self._fd: int = sock.fileno()
        self._sealed = sock if isinstance(sock, SealedSocket) else None
        self._schedule = turn.add_when_idle if patient else turn.add
        self._loop = loop
        self._on_broken = on_broken
        self._chunks: list[bytes | memoryview] = []
        self._watcher: Any = None
        self._drained: Event | None = None
        self._closed = False
        self.unsent = 0
        self.progress_at = 0.0

    @property
    def descriptor(self) -> int:
        """That of the socket; -1 once closed."""
        return -1 if self._closed else self._fd

    def put(self, data: bytes) -> None:
        """Queue `data`; it is written at the end of the turn, or soon after. Never blocks; nothing happens once closed."""
        if self._closed:
            return
        if not self._chunks:
            self.progress_at = time.monotonic()
            self._schedule(self.flush)
        self._chunks.append(data)
        self.unsent += len(data)

    def flush(self) -> None:
        """Write what the socket takes now; the rest follows when it takes more."""
        if self._chunks and self._watcher is None:
            self._write()

    def wait_below(self, limit: int, timeout: float | None = None) -> bool:
        """Block this greenlet until at most `limit` bytes are unsent; False after `timeout` seconds. Raises `Unavailable` once closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.unsent > limit and not self._closed:
            if self._drained is None:
                self._drained = Event()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._drained.wait(left)
        if self._closed:
            raise Unavailable("the connection is closed")
        return True

    def wait_open(self, limit: int) -> None:
        """As `wait_below`, for who does not mind that it is closed meanwhile."""
        with contextlib.suppress(Unavailable):
            self.wait_below(limit)

    def close(self) -> None:
        """Forget what is unsent and stop watching; call it before the socket is closed."""
        self._closed = True
        self._chunks.clear()
        self.unsent = 0
        self._stop_watching()
        self._wake()

    def _write(self) -> None:
        count, data = self._next()
        try:
            sent = os.write(self._fd, data) if self._sealed is None else self._sealed.send_now(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            self._on_broken()
            return
        self._chunks[:count] = [] if sent == len(data) else [memoryview(data)[sent:]]  # a view: a long line is not copied at each write
        self.unsent -= sent
        if self._chunks:
            self._watch()
        elif self._watcher is not None:
            self._stop_watching()
        if sent:
            self._progressed()

    def _next(self) -> tuple[int, bytes | memoryview]:
        """How many chunks go into the next write, and their bytes."""
        chunks = self._chunks
        if len(chunks) == 1:
            return 1, chunks[0]
        if self.unsent <= _MOST_AT_ONCE:
            return len(chunks), b"".join(chunks)
        count = size = 0
        while size < _MOST_AT_ONCE:
            size += len(chunks[count])
            count += 1
        return count, b"".join(chunks[:count])

    def _progressed(self) -> None:
        self.progress_at = time.monotonic()
        if self._drained is not None:
            self._wake()

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = self._loop.io(self._fd, _WRITABLE)
            self._watcher.start(self._write)

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _wake(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set()
