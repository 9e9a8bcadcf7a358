"""What is to be done at the end of this turn of the event loop, once, however often it was asked for in the turn.

Sockets that became readable are all read in one turn; what they led to (a commit, one write per peer) is then done for all of them
together. What is in no hurry waits a little longer, until the loop has nothing else to do: under load the answers of several turns leave
in one write, which is a third of the gateway's work. Everything here runs in the hub: what is added must not block.
"""

import logging
from collections.abc import Callable
from typing import Any

from app.log import untold

log = logging.getLogger(__name__)

AT_LATEST = 0.002
"""Seconds for which a busy loop may hold back what is to be done when it is idle."""


class Turn:
    """The end of the current turn of `loop` (a gevent event loop)."""

    __slots__ = ("_idle", "_loop", "_pending", "_too_late", "_when_idle")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._idle = loop.idle()
        self._too_late = loop.timer(AT_LATEST, AT_LATEST)
        self._pending: list[Callable[[], None]] = []
        self._when_idle: list[Callable[[], None]] = []

    def add(self, call: Callable[[], None]) -> None:
        """Call it at the end of this turn; what is added while the turn ends still belongs to it, in order."""
        if not self._pending:
            self._loop.run_callback(self._end)
        self._pending.append(call)

    def add_when_idle(self, call: Callable[[], None]) -> None:
        """Call it when the loop has nothing else to do, or `AT_LATEST` seconds from now."""
        if not self._when_idle:
            self._idle.start(self._end_idle)
            self._too_late.again(self._end_idle)  # start would go on from where it was stopped
        self._when_idle.append(call)

    def _end(self) -> None:
        _call_all(self._pending)

    def _end_idle(self) -> None:
        self._idle.stop()
        self._too_late.stop()
        _call_all(self._when_idle)


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:  # grows while it is walked: a commit queues lines, lines queue a write
        try:
            call()
        except Exception as error:
            log.error("turn-failed: %s", getattr(call, "__qualname__", type(call).__name__), exc_info=untold(error))
    calls.clear()
