"""A task's events as Server-Sent Events (HTML, 9.2): the number of an event is its `id`, so that a client resumes where it was cut off."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from app.errors import HandoffError
from app.gateway.answers import PIECE, pieces
from app.gateway.follow import Follower
from app.journal import Said

MEDIA_TYPE: Final = "text/event-stream"

_BEGIN: Final = b"retry: 1000\n\n"
"""Milliseconds after which a browser connects again; also what makes the head of the answer leave at once."""

_KEEP_ALIVE: Final = b":\n\n"


class Stream:
    """The body of an answer that goes on until the task is over, its reader is gone, or all are sent away."""

    def __init__(self, follower: Follower, quiet: float, until: float, done: Callable[[], None]) -> None:
        """A comment is sent after `quiet` seconds of silence; `until` is when it ends in any case, by the monotonic clock. `done` is
        called once at the end, however that comes."""
        self._follower = follower
        self._quiet = quiet
        self._until = until
        self._done = done

    def __iter__(self) -> Iterator[bytes]:
        yield _BEGIN
        follower = self._follower
        try:
            while True:
                yield from _together(follower.read())
                left = self._until - time.monotonic()
                if follower.over or left <= 0:
                    return
                if not follower.wait(min(left, self._quiet)) and left > self._quiet:
                    yield _KEEP_ALIVE
        except HandoffError:
            return  # forgotten, or refused after all: whoever asks again is told

    def close(self) -> None:
        """The answer is over: as WSGI has it, also where it never began."""
        self._done()


def _together(said: list[Said]) -> Iterator[bytes]:
    """The messages of these events, small ones together, and never much more than a piece in the hand."""
    batch = b""
    for number, line, _ in said:
        batch += b"id: %d\ndata: %b\n\n" % (number, line)
        if len(batch) >= PIECE:
            yield from pieces(batch)
            batch = b""
    yield from pieces(batch)
