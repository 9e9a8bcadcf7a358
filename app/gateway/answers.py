"""An answer of the HTTP API, and how it becomes a WSGI response: JSON, a problem, or a stream; with the headers that all of them have."""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from app import wire
from app.errors import HandoffError
from app.gateway import problems

StartResponse = Callable[[str, list[tuple[str, str]]], object]

PIECE: Final = 64 * 1024
"""A write has a time-out, and a slow reader is one that does not take this much in it."""

_JSON: Final = "application/json"
_ALWAYS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
)


class Answer(NamedTuple):
    """A status line, a body that is whole or comes bit by bit, its type, and further headers."""

    status: str
    body: bytes | Iterable[bytes]
    media_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()

    def send(self, start_response: StartResponse, *more: tuple[str, str], head_only: bool) -> Iterable[bytes]:
        """The WSGI response, with `more` headers. Of a stream, nothing is said of its length."""
        body = self.body
        length = [("Content-Length", str(len(body)))] if isinstance(body, bytes) and self.media_type else []
        kind = [("Content-Type", self.media_type)] if self.media_type else []
        start_response(self.status, [*kind, *length, *self.headers, *more, *_ALWAYS])
        if head_only:
            return [] if isinstance(body, bytes) else iter(())
        return list(pieces(body)) if isinstance(body, bytes) else body


def json_answer(status: str, value: Any) -> Answer:
    """An answer with a value in JSON types."""
    return Answer(status, wire.encode_decoded(value))


def problem(error: HandoffError) -> Answer:
    """What is answered where something is wrong."""
    return Answer(problems.kind_of(error).status, problems.document(error), problems.MEDIA_TYPE, problems.headers_of(error))


def pieces(data: bytes) -> Iterable[bytes]:
    """The data in parts of at most `PIECE` bytes."""
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))
