"""Looks after all WebSocket connections of this process, in one greenlet: pings the quiet ones, ends the silent and the stalled ones."""

import itertools
import logging
import time
from typing import Any

import gevent

from app.gateway.requests import LINGER
from app.gateway.shared import Common
from app.gateway.websocket import Connection
from app.settings import Settings
from app.turn import Turn

log = logging.getLogger(__name__)

_AT_ONCE = 500


class Reaper:
    """The connections there are, and the limits that they live under."""

    def __init__(self, hub: Any, turn: Turn, settings: Settings) -> None:
        self.connections: set[Connection] = set()
        self.common = Common(hub, turn, settings.max_message, settings.max_unsent, itertools.count(1), self.connections)
        self._settings = settings

    def run(self) -> None:
        """Sweep again and again, until killed; often enough that a limit is kept to a quarter of it or to a second."""
        settings = self._settings
        pause = min(1.0, settings.ping_interval / 4, settings.ping_timeout / 4, settings.stall_timeout / 4)
        while True:
            gevent.sleep(pause)
            try:
                self.sweep()
            except Exception:  # the next sweep may fare better, and there is nobody else to do it
                log.exception("sweep-failed")

    def sweep(self) -> None:
        """Look at each connection once; others run in between."""
        for number, connection in enumerate(list(self.connections), 1):
            if connection.closed:
                self._hurry(connection, time.monotonic())
            else:
                self._check(connection, time.monotonic())
            if number % _AT_ONCE == 0:
                gevent.sleep(0)

    def _check(self, connection: Connection, now: float) -> None:
        settings = self._settings
        if connection.outbox.unsent and now - connection.outbox.progress_at > settings.stall_timeout:
            connection.close(1013, "what was sent is not being read")
        elif not connection.waiting:
            connection.heard_at = now  # we do not listen, so silence says nothing
        elif connection.pinged_at > connection.heard_at:
            if now - connection.pinged_at > settings.ping_timeout:
                connection.abort()
        elif now - connection.heard_at > settings.ping_interval:
            connection.ping(now)

    def _hurry(self, connection: Connection, now: float) -> None:
        """One that is closing gets its last bytes out, or it is cut off: it may not take them, and others may wait for that."""
        quiet = now - max(connection.closed_at, connection.outbox.progress_at)
        if connection.outbox.unsent and (quiet > LINGER or now - connection.closed_at > self._settings.stall_timeout):
            connection.abort()

    def close_all(self, code: int, reason: str, idle_only: bool = False) -> None:
        """Say goodbye to everyone, or to those for whom no work goes on."""
        for connection in list(self.connections):
            if not idle_only or not len(connection.unfinished):
                connection.close(code, reason)
