"""One WebSocket to a gateway that comes back: it opens, notices when nobody is there any more, waits (longer each time, with jitter) and
opens again. It carries JSON objects either way and knows nothing of tasks: `app/remote/conversation.py` does.

Two threads own it. The reader opens, reads and waits; the writer of the open socket does nothing but write, so that a gateway which does
not read for a while never keeps us from reading. Under gevent's patching both are greenlets.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from websocket import ABNF

from app import wire
from app.errors import BadRequest, Unavailable
from app.remote.socket import NORMAL, TROUBLE, Frame, Pace, RemoteSocket, Silence, open_socket

log = logging.getLogger(__name__)

POLICY: Final = 1008
"""With this close code, and those of applications (4000 and above), the same would be said again: there is no other attempt."""
RESTARTING: Final = 1012
"""Another process takes over: it is there in a moment, however often that has happened lately."""
TRY_LATER: Final = 1013
GONE: Final = 1006
"""Stands for the close code where there was none (RFC 6455, 7.4.1)."""

_GOODBYE: Final[Frame] = (ABNF.OPCODE_CLOSE, NORMAL.to_bytes(2, "big"))
_FAREWELL: Final = 1.0


class Backoff:
    """How long to wait before the next attempt; `chance` gives numbers from 0 to 1."""

    def __init__(self, pace: Pace, chance: Callable[[], float] = random.random) -> None:
        self._pace = pace
        self._chance = chance
        self._failures = 0

    def lost(self, code: int, lasted: float) -> None:
        """A connection that was open for `lasted` seconds has ended with this close code."""
        if code == RESTARTING or lasted >= self._pace.settled:
            self._failures = 0
        if code == TRY_LATER:
            self._failures = max(self._failures, 2)

    def delay(self) -> float:
        """The seconds before the next attempt; the one after it is later."""
        most = min(self._pace.max_delay, self._pace.first_delay * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return most * (0.5 + self._chance() / 2)


class Listener(Protocol):
    """Who is told what becomes of a connection, from its own thread."""

    def opened(self) -> None:
        """It is open."""

    def heard(self, message: dict[str, Any]) -> None:
        """A message has come."""

    def lost(self, code: int, reason: str) -> None:
        """It is over, and will be tried again."""

    def ended(self, error: Unavailable) -> None:
        """There is no other attempt; said once."""


class RemoteConnection:
    """To one gateway. `give_up`: seconds without a connection after which it ends, None to try for ever."""

    def __init__(self, url: str, pace: Pace, give_up: float | None) -> None:
        self.url = url
        self._pace = pace
        self._give_up = give_up
        self._socket: RemoteSocket | None = None
        self._leaving = threading.Event()
        self._reader: threading.Thread | None = None

    def start(self, listener: Listener) -> None:
        """Open it, in the thread that calls; raises `Unavailable` where that fails, and then nothing is tried again."""
        first = open_socket(self.url, self._pace)
        self._reader = threading.Thread(target=self._live, args=(first, listener), name="handoff-reader", daemon=True)
        self._reader.start()

    def send(self, text: bytes) -> None:
        """Queue one message; dropped while it is not open."""
        if (opened := self._socket) is not None:
            opened.outgoing.put((ABNF.OPCODE_TEXT, text))

    def close(self) -> None:
        """Leave, with the closing handshake; a peer that does not answer it is waited for a second. An attempt to open ends by itself."""
        self._leaving.set()
        if (opened := self._socket) is not None:
            opened.outgoing.put(_GOODBYE)
        if self._reader is None or self._reader is threading.current_thread():
            return
        self._reader.join(_FAREWELL)
        if opened is not None:
            opened.abort()  # type: ignore[no-untyped-call]
            self._reader.join(_FAREWELL)

    def _live(self, first: RemoteSocket, listener: Listener) -> None:
        try:
            listener.ended(self._until_the_end(first, listener))
        except Exception as error:
            log.exception("the reader of %s has failed", self.url)
            listener.ended(Unavailable(f"the connection to {self.url} has failed: {error}"))

    def _until_the_end(self, opened: RemoteSocket, listener: Listener) -> Unavailable:
        backoff = Backoff(self._pace)
        while True:
            began = time.monotonic()
            code, reason = self._use(opened, listener)
            if self._leaving.is_set():
                return Unavailable(f"the session with {self.url} is closed")
            if code == POLICY or code >= 4000:
                return Unavailable(f"{self.url} refuses to serve: {reason or code}")
            backoff.lost(code, time.monotonic() - began)
            listener.lost(code, reason)
            again = self._open_again(backoff)
            if isinstance(again, Unavailable):
                return again
            opened = again

    def _open_again(self, backoff: Backoff) -> RemoteSocket | Unavailable:
        began = time.monotonic()
        while not self._leaving.wait(backoff.delay()):
            try:
                return open_socket(self.url, self._pace)
            except Unavailable as error:
                if self._give_up is not None and time.monotonic() - began >= self._give_up:
                    return Unavailable(f"given up after {self._give_up:g} s: {error.message}")
        return Unavailable(f"the session with {self.url} is closed")

    def _use(self, opened: RemoteSocket, listener: Listener) -> tuple[int, str]:
        """Serve one connection to its end; the close code and the reason."""
        writer = threading.Thread(target=opened.write, name="handoff-writer", daemon=True)
        writer.start()
        self._socket = opened
        try:
            if self._leaving.is_set():  # it was closed before it was ours to close
                opened.outgoing.put(_GOODBYE)
                return NORMAL, ""
            listener.opened()
            return self._read(opened, listener)
        finally:
            self._socket = None
            opened.outgoing.put(None)
            writer.join(_FAREWELL)  # a moment for the last word
            opened.abort()  # type: ignore[no-untyped-call]
            writer.join()
            opened.shutdown()  # type: ignore[no-untyped-call]

    def _read(self, opened: RemoteSocket, listener: Listener) -> tuple[int, str]:
        while True:
            try:
                opcode, payload = opened.read(self._pace)
            except Silence:
                return GONE, "it has gone silent"
            except TROUBLE as error:
                return GONE, str(error)
            if opcode == ABNF.OPCODE_CLOSE:
                return _close_code(payload), payload[2:].decode(errors="replace")
            if opcode == ABNF.OPCODE_TEXT:
                self._take(payload, listener)

    def _take(self, payload: bytes, listener: Listener) -> None:
        try:
            message = wire.decode(payload)
        except BadRequest as error:
            log.warning("%s sent what cannot be read: %s", self.url, error.message)
            return
        if type(message) is dict:
            listener.heard(message)
        else:
            log.warning("%s sent what is no object; this is no gateway that speaks the full form", self.url)


def _close_code(payload: bytes) -> int:
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else GONE
