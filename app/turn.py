"""What is to be done at the end of this turn of the event loop, once, however often it was asked for in the turn.

Sockets that became readable are all read in one turn; what they led to (a commit, one write per peer) is then done for all of them
together. Everything here runs in the hub: what is added must not block.
"""

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class Turn:
    """The end of the current turn of `loop` (a gevent event loop)."""

    __slots__ = ("_loop", "_pending")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._pending: list[Callable[[], None]] = []

    def add(self, call: Callable[[], None]) -> None:
        """Call it at the end of this turn; what is added while the turn ends still belongs to it, in order."""
        if not self._pending:
            self._loop.run_callback(self._end)
        self._pending.append(call)

    def _end(self) -> None:
        pending = self._pending
        for call in pending:  # grows while it is walked: a commit queues lines, lines queue a write
            try:
                call()
            except Exception:
                log.exception("turn-failed: %r", call)
        pending.clear()
