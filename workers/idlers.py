"""Connections that say nothing for too long, or do not read, are closed: each holds memory and a descriptor."""

from collections.abc import Iterable
from typing import Final
from weakref import WeakKeyDictionary

from workers.connection import Connection

GATEWAYS_AT_LEAST: Final = 60.0
"""Seconds for gateways, whatever the limit: they say something every few seconds, or are gone."""

_BEGAN: Final = (-1, 0.0)


class Idlers:
    """Of one worker process: since when each of its connections has said nothing. `limit` is in seconds."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since: WeakKeyDictionary[Connection, tuple[int, float]] = WeakKeyDictionary()

    def look(self, connections: Iterable[Connection], now: float) -> None:
        """To be called now and then. What counts is whole lines, so that a byte now and then keeps nobody in."""
        for connection in list(connections):
            lines, since = self._since.get(connection, _BEGAN)
            limit = max(self._limit, GATEWAYS_AT_LEAST) if connection.of_gateway else self._limit
            connection.close_if_stalled(now - limit)
            if not connection.answered or lines != connection.lines:
                self._since[connection] = (connection.lines, now)
            elif now - since > limit:
                connection.close()
