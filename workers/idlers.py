"""Connections that wait for nothing, and say nothing for too long, are closed: each holds memory and a descriptor."""

from collections.abc import Iterable
from typing import Final
from weakref import WeakKeyDictionary

from workers.connection import Connection

_BEGAN: Final = (-1, 0.0)


class Idlers:
    """Of one worker process: since when each of its connections has been idle. `limit` is in seconds."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since: WeakKeyDictionary[Connection, tuple[int, float]] = WeakKeyDictionary()

    def close_idle(self, connections: Iterable[Connection], now: float) -> None:
        """To be called now and then; what counts is whole lines, so that a byte now and then keeps nobody in."""
        for connection in list(connections):
            lines, since = self._since.get(connection, _BEGAN)
            if not connection.idle or lines != connection.lines:
                self._since[connection] = (connection.lines, now)
            elif now - since > self._limit:
                connection.close()
