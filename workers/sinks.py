"""Where the events of a task go that came straight to the Text port: the short form's one bare line, and the full form's events.

A task that a gateway sent goes to its claimant instead: `workers/claims.py`. The gateway counts those; these are counted here.
"""

import time
from collections.abc import Callable

from gevent.event import Event as Signal

from app.figures import Ends
from app.messages import Event, final_line
from app.outbox import Outbox
from workers.attempt import Attempt

FAR_BEHIND = 1024 * 1024
"""Bytes unsent to a receiver past which a task that yields values is held."""


class ShortSink:
    """The short form: nothing but the result, or the error, as one line. `wait_final` blocks until there is one."""

    __slots__ = ("_ended", "_ends", "line")
    journal = ""

    def __init__(self, ends: Ends) -> None:
        self.line = b""
        self._ends = ends
        self._ended = Signal()

    def event(self, attempt: Attempt, line: bytes) -> None:
        """The short form has no events but its end."""

    def final(self, attempt: Attempt, event: Event, key: bytes, value: bytes) -> None:
        """The bare result, or `{"error": …}`."""
        self.line = value if key == b"result" else b'{"error":%b}' % value
        _count(self._ends, attempt, event)
        self._ended.set()

    def flush(self) -> None:
        """Nothing was said yet."""

    def wait(self) -> None:
        """Nothing is queued."""

    def wait_final(self) -> bytes:
        """The one line, without its ending."""
        self._ended.wait()
        return self.line


class DirectSink:
    """The full form on a connection of the caller's own: what it does not read is lost with its connection."""

    __slots__ = ("_ends", "_on_final", "_outbox")
    journal = ""

    def __init__(self, outbox: Outbox, on_final: Callable[[Attempt], None], ends: Ends) -> None:
        self._outbox = outbox
        self._on_final = on_final
        self._ends = ends

    def event(self, attempt: Attempt, line: bytes) -> None:
        """One line."""
        self._outbox.put(line + b"\n")

    def final(self, attempt: Attempt, event: Event, key: bytes, value: bytes) -> None:
        """The last line."""
        _count(self._ends, attempt, event)
        self._on_final(attempt)
        self._outbox.put(final_line(attempt.label, event, attempt.seq, attempt.attempt, key, value) + b"\n")

    def flush(self) -> None:
        """Write now."""
        self._outbox.flush()

    def wait(self) -> None:
        """Block while more than `FAR_BEHIND` bytes are unsent; a connection that is gone holds nobody."""
        if self._outbox.unsent > FAR_BEHIND:
            self._outbox.wait_open(FAR_BEHIND)


def _count(ends: Ends, attempt: Attempt, event: Event) -> None:
    ends.add(attempt.function, event.value, time.monotonic() - attempt.started_at if attempt.started_at else None)
