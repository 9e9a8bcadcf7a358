"""What goes wrong over HTTP, as problem documents (RFC 9457): one table of our codes, with the status that each has.

The errors themselves are in `app/errors.py`; those that only HTTP can have are a `HttpRefusal`.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from app import wire
from app.errors import HandoffError, Refusal

MEDIA_TYPE: Final = "application/problem+json"


class Kind(NamedTuple):
    """A kind of problem: its status line, and what it means."""

    status: str
    title: str

    @property
    def number(self) -> int:
        """As 404."""
        return int(self.status.partition(" ")[0])


PROBLEMS: Mapping[str, Kind] = {
    "bad_request": Kind("400 Bad Request", "The request is not one of this interface"),
    "unauthorized": Kind("401 Unauthorized", "It is not known who asks"),
    "forbidden": Kind("403 Forbidden", "Whoever asks may not do this here"),
    "not_found": Kind("404 Not Found", "Nothing is at this path"),
    "unknown_task": Kind("404 Not Found", "No task of yours has this id"),
    "method_not_allowed": Kind("405 Method Not Allowed", "This cannot be done here"),
    "late": Kind("408 Request Timeout", "The request took too long to arrive"),
    "id_conflict": Kind("409 Conflict", "The id is taken by another task"),
    "too_large": Kind("413 Content Too Large", "The body is too large"),
    "unsupported_media_type": Kind("415 Unsupported Media Type", "The body is not JSON"),
    "bad_arguments": Kind("422 Unprocessable Content", "The function cannot be called with these arguments"),
    "unknown_function": Kind("422 Unprocessable Content", "There is no such function"),
    "rate_limited": Kind("429 Too Many Requests", "Too much was asked in too short a time"),
    "internal": Kind("500 Internal Server Error", "Something went wrong here"),
    "busy": Kind("503 Service Unavailable", "There is no room for more now"),
    "unavailable": Kind("503 Service Unavailable", "Nobody is there to do it"),
    "disk_full": Kind("507 Insufficient Storage", "There is no room on the disk"),
}
"""Each code with what stands for it in HTTP. Two codes may share a status; a client that wants to know reads the code."""


class HttpRefusal(Refusal):
    """What only an HTTP request can do wrong: a code of the table, and headers that go with it."""

    def __init__(self, code: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers


def kind_of(error: HandoffError) -> Kind:
    """What an error is over HTTP; one that the table does not know is `internal`."""
    return PROBLEMS.get(error.code) or PROBLEMS["internal"]


def document(error: HandoffError) -> bytes:
    """The problem document. `type` is where its description stands; `code` is ours, as on the WebSocket."""
    kind = kind_of(error)
    head = {"type": type_of(error.code), "title": kind.title, "status": kind.number, "detail": error.message, "code": error.code}
    return wire.encode({**error.details, **head})


def headers_of(error: HandoffError) -> tuple[tuple[str, str], ...]:
    """The headers that go with a problem: when to try again, in whole seconds, and its own."""
    after: Any = error.details.get("retry_after")
    again = (("Retry-After", str(max(1, math.ceil(after)))),) if type(after) in (int, float) else ()
    how = (("WWW-Authenticate", 'Bearer realm="handoff"'),) if error.code == "unauthorized" else ()
    own = error.headers if isinstance(error, HttpRefusal) else ()
    return (*again, *how, *own)


def type_of(code: str) -> str:
    """The `type` of a problem: the path of its entry in the description of the interface."""
    return f"/openapi.json#/components/responses/{code if code in PROBLEMS else 'internal'}"
