"""One connection served by one's own handlers, each message in a greenlet of its own, boundedly many at once."""

import functools
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import gevent
from gevent.event import Event

from app.errors import Forbidden, Unavailable
from app.gateway.authority import Authority
from app.gateway.frames import BINARY
from app.gateway.handshake import Opener, Runner
from app.gateway.hooks import Hooks
from app.gateway.rates import Limits, place_of
from app.gateway.websocket import Connection
from app.log import untold

log = logging.getLogger(__name__)

MOST_RUNNING: Final = 100
"""Messages of one connection that are handled at once; more wait, in order."""

_OVERHEAD: Final = 100


def opener(hooks: Hooks, most_waiting: int, authority: Authority, limits: Limits) -> Opener:
    """Serves connections with these handlers. Past `most_waiting` bytes of messages that wait, a connection is not read from.

    Where it is asked who somebody is, the upgrade has to tell: what the messages mean is not known here.
    """

    def open_connection(connection: Connection, environ: Mapping[str, Any]) -> Runner:
        place = place_of(environ.get("REMOTE_ADDR", ""))
        if limits.any:
            limits.check("", place)
        connection.grant = authority.of_request(environ)
        if hooks.connect is not None and hooks.connect(connection, environ) is False:
            raise Forbidden("this connection was refused")
        pace = functools.partial(limits.pace, connection.subject, place) if limits.any else None
        return HandlerSession(hooks, connection, most_waiting, pace).run

    return open_connection


class HandlerSession:
    """Reads one connection and has its messages handled; its length is how many are."""

    __slots__ = ("_busy", "_connection", "_hooks", "_most_waiting", "_pace", "_room", "_waiting", "_waiting_bytes")

    def __init__(self, hooks: Hooks, connection: Connection, most_waiting: int, pace: Callable[[], float] | None) -> None:
        """`pace` counts a message, and gives the seconds that the next has to wait: there is no word for a refusal here."""
        self._hooks = hooks
        self._pace = pace
        self._connection = connection
        self._most_waiting = most_waiting
        self._waiting: deque[str | bytes] | None = None
        self._waiting_bytes = 0
        self._room: Event | None = None
        self._busy = 0

    def __len__(self) -> int:
        return self._busy

    def run(self) -> None:
        """Until the connection is over. Messages that came before its end are still handled."""
        self._connection.unfinished = self
        while (messages := self._connection.read()) is not None:
            for opcode, payload in messages:
                if opcode == BINARY and not self._hooks.binary:
                    self._connection.close(1003, "binary messages are not taken here")
                    break
                if self._pace is not None and (wait := self._pace()):
                    gevent.sleep(wait)
                self._take(payload)
            if self._waiting_bytes > self._most_waiting:
                self._room = Event()
                self._room.wait()
        if self._hooks.close is not None:
            gevent.spawn(self._guarded, self._hooks.close, self._connection)

    def _take(self, message: str | bytes) -> None:
        if self._busy < MOST_RUNNING:
            self._busy += 1
            gevent.spawn(self._handle, message)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(message)
        self._waiting_bytes += len(message) + _OVERHEAD

    def _handle(self, message: str | bytes) -> None:
        try:
            self._guarded(self._hooks.message, self._connection, message)
        finally:
            self._next()

    def _next(self) -> None:
        """The greenlet that is done makes place for the message that has waited longest."""
        if not self._waiting:
            self._busy -= 1
            return
        message = self._waiting.popleft()
        self._waiting_bytes -= len(message) + _OVERHEAD
        if self._room is not None and self._waiting_bytes <= self._most_waiting >> 1:
            self._room.set()
            self._room = None
        gevent.spawn(self._handle, message)

    def _guarded(self, handler: Any, *args: Any) -> None:
        """What a handler raises ends this message, not the connection."""
        about = {"connection": self._connection.id}
        try:
            handler(*args)
        except (Exception, SystemExit) as error:  # of which the latter would end the gateway
            if isinstance(error, Unavailable) and self._connection.closed:
                log.info("handler-stopped: the connection is closed", extra=about)
            else:
                log.error("handler-failed", exc_info=untold(error), extra=about)
