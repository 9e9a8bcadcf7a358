"""How the body of an HTTP request is framed (RFC 9112 6 and 7), sans-IO: what a head says of it, and bytes in, the body out.

Who reads the bytes, under which deadline, is in `app/gateway/peer.py`. Whatever two readers could take for two different things is
refused: it is how requests are smuggled through a proxy.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from typing import Final

from app.errors import BadRequest, TooLarge

CHUNKED: Final = -1
"""The length of a body that tells its length as it comes."""

_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK_HEAD: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_MOST_IN_LINE: Final = 1024
_MOST_IN_TRAILERS: Final = 8192
_OVERHEAD: Final = 8
"""How many bytes may be spent on each byte of a body: a chunk of a single byte has six."""


def length_of(lines: Sequence[bytes]) -> int:
    """The length of the body behind a head: its request line and fields without line ends. `CHUNKED`, or 0 for none.

    Raises `BadRequest` where that cannot be told, or may be told in two ways.
    """
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines[1:])]
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if codings != [b"chunked"] or lengths or not lines[0].endswith(b" HTTP/1.1"):
            raise BadRequest("Transfer-Encoding can only be chunked here, without Content-Length, in HTTP/1.1")
        return CHUNKED
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequest("Content-Length wants one whole number")
    return int(lengths[0])


class Whole:
    """A body of a length that was told before."""

    def __init__(self, length: int, limit: int) -> None:
        """Raises `TooLarge` past `limit` bytes."""
        if length > limit:
            raise TooLarge("the body", limit)
        self._data = bytearray()
        self._length = length

    def feed(self, data: bytes) -> bool:
        """Take what came next; whether that is all of it."""
        self._data += data
        return len(self._data) >= self._length

    def split(self) -> tuple[bytes, bytes]:
        """The body, and what came after it."""
        return bytes(self._data[: self._length]), bytes(self._data[self._length :])


class Chunks:
    """A body in chunks. Extensions and trailers are passed over."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._budget = _OVERHEAD * limit + _MOST_IN_TRAILERS
        self._data = bytearray()
        self._body = bytearray()
        self._parser = self._parse()
        next(self._parser)

    def feed(self, data: bytes) -> bool:
        """Take what came next; whether that is all of it. Raises `TooLarge`, or `BadRequest` where it is malformed."""
        self._budget -= len(data)
        self._data += data
        if next(self._parser, _DONE) is _DONE:
            return True
        if self._budget < 0:
            raise TooLarge("the body", self._limit)
        return False

    def split(self) -> tuple[bytes, bytes]:
        """The body, and what came after it."""
        return bytes(self._body), bytes(self._data)

    def _parse(self) -> Iterator[None]:
        """Goes on each time that there is more data."""
        while size := (yield from self._size()):
            if size + len(self._body) > self._limit:
                raise TooLarge("the body", self._limit)
            while len(self._data) < size + 2:
                yield
            if self._data[size : size + 2] != b"\r\n":
                raise BadRequest("a chunk is longer than it says")
            self._body += self._data[:size]
            del self._data[: size + 2]
        left = _MOST_IN_TRAILERS
        while line := (yield from self._line()):
            left -= len(line)
            if left < 0:
                raise BadRequest("too many trailers")

    def _size(self) -> Generator[None, None, int]:
        found = _CHUNK_HEAD.fullmatch((yield from self._line()))
        if found is None:
            raise BadRequest("a chunk does not begin with its size")
        return int(found[1], 16)

    def _line(self) -> Generator[None, None, bytes]:
        while (end := self._data.find(b"\r\n", 0, _MOST_IN_LINE)) < 0:
            if len(self._data) >= _MOST_IN_LINE:
                raise BadRequest("a line between the chunks is too long")
            yield
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        return line


_DONE: Final = object()
