"""The Text codec, sans-IO: bytes in, lines out; JSON that is exact, finite and bounded. No sockets and no meaning of messages here.

A line is one JSON object in UTF-8, ended by `\\n`. Decoding uses the standard library's C scanner, because it is strict (RFC 8259) and
exact where ujson is lenient (it takes `-`, NaN, 1e999 and lone surrogates); encoding uses ujson, which is three times as fast. Both are
linear.
"""

import json
import math
import re
from itertools import accumulate
from typing import Any, NoReturn

import ujson

from app.errors import BadRequest

MAX_DEPTH = 32
"""How deep arrays and objects may be nested."""

_SCALARS = frozenset((str, int, float, bool, type(None)))
_STRINGS = re.compile(r'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)  # possessive, and the end optional: linear even where a string never ends
_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")  # as signed bytes: one deeper, one back
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_WHITESPACE = " \t\r\n"


class LineBuffer:
    """Cuts a stream of bytes into lines of at most `limit` bytes, the ending not counted; linear in what is fed."""

    __slots__ = ("_limit", "_partial", "_size", "overflowed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial: list[bytes] = []
        self._size = 0
        self.overflowed = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their endings.

        Where a line is past the limit, those before it are returned, `overflowed` is set, and nothing more comes out: framing is lost.
        """
        if self.overflowed:
            return []
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial.clear()
            self._size = 0
        self._size += len(rest)
        if rest:
            self._partial.append(rest)
        return self._within_limit(lines)

    def _within_limit(self, lines: list[bytes]) -> list[bytes]:
        for number, line in enumerate(lines):
            if line.endswith(b"\r"):
                lines[number] = line = line[:-1]
            if len(line) > self._limit:
                self._overflow()
                return lines[:number]
        if self._size > self._limit + 1:  # one more for the \r that may end it
            self._overflow()
        return lines

    def _overflow(self) -> None:
        self.overflowed = True
        self._partial.clear()

    def take_rest(self) -> bytes:
        """What came after the last line, once nothing more will."""
        rest = b"".join(self._partial)
        self._partial.clear()
        self._size = 0
        return rest


def is_foreign(beginning: bytes) -> bool:
    """Whether a stream that begins so speaks another protocol: HTTP (sent by a browser, its body could hold lines of ours), or TLS. No JSON
    begins with a capital letter, nor with that byte."""
    return beginning[:1].isupper() or beginning[:1] == b"\x16"


def decode(line: bytes | bytearray) -> Any:
    """The JSON value of one line. Raises `BadRequest`, with where and why, for anything that RFC 8259 or our limits do not allow."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"not UTF-8 at byte {error.start}") from None
    return decode_text(text)


def decode_text(text: str) -> Any:
    """As `decode`, for text that is decoded already (a WebSocket message)."""
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    try:
        value, end = _scan(text, 0)
    except (StopIteration, ValueError):
        value, end = _explain_or_decode(text)
    if end != len(text) and text[end:].strip(_WHITESPACE):
        raise BadRequest(f"bad JSON: something follows the value at character {end}; one object a line")
    if "\\u" in text:
        _check_surrogates(value)
    return value


def decode_checked(line: bytes) -> Any:
    """As `decode`, in half the time, for lines that one of our own processes made of what it had decoded and checked."""
    try:
        return ujson.loads(line)
    except ValueError as error:
        raise BadRequest(f"bad JSON: {error}") from None


def encode(value: Any, most_depth: int = MAX_DEPTH) -> bytes:
    """One value as JSON in UTF-8, nested at most `most_depth` deep: one less than `MAX_DEPTH` where it is to stand in a message. Raises
    `TypeError` for what JSON has no form for, `ValueError` for NaN, infinities, lone surrogates, cycles and depth."""
    try:
        if type(value) in _SCALARS or _is_plain(value, MAX_DEPTH - 2):
            return _fast(value).encode()
        return _strict_and_shallow(value, most_depth).encode()
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error) or "nested too deeply") from None


def encode_line(message: dict[str, Any]) -> bytes:
    """One message as a line with its ending."""
    return encode(message) + b"\n"


def encode_decoded(value: Any) -> bytes:
    """As `encode`, for what `decode` gave: it can hold nothing that has no form."""
    return _fast(value).encode()


def _fast(value: Any) -> str:
    """In UTF-8, slashes as they are, no NaN. By position, because ujson takes a microsecond to read the same as keywords."""
    dumped: str = _dumps(value, False, False, False, False, 0, False)
    return dumped


def _is_plain(value: Any, depth: int) -> bool:
    """Whether it is made of exact JSON types alone, so that ujson neither calls a method of it nor turns a key into something else."""
    if depth == 0:
        return False
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return False
    for item in value:
        if type(item) not in _SCALARS and not _is_plain(item, depth - 1):
            return False
    return True


def _strict_and_shallow(value: Any, most_depth: int) -> str:
    text = _strict(value)
    try:
        _check_depth(text, most_depth)
    except BadRequest as error:
        raise ValueError(error.message) from None
    return text


def _check_depth(text: str, most: int = MAX_DEPTH) -> None:
    steps = _STRINGS.sub("", text).encode("ascii", "ignore").translate(_STEPS, _NO_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > most:  # in C all of it: a line may be made of brackets
        raise BadRequest(f"nested deeper than {most}; flatten it")


def _check_surrogates(value: Any) -> None:
    try:
        _fast(value).encode()
    except UnicodeEncodeError:
        raise BadRequest("a lone surrogate (\\ud800 to \\udfff) is no character; send pairs") from None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise BadRequest(f"the number {text[:40]} is too large for a double; send it as a string")
    return number


def _no_constant(name: str) -> NoReturn:
    raise BadRequest(f"bad JSON: {name} is not a JSON number; send null or a string")


def _explain_or_decode(text: str) -> tuple[Any, int]:
    stripped = text.lstrip(_WHITESPACE)
    if not stripped:
        raise BadRequest("an empty line; send one JSON object a line")
    try:
        value, end = _DECODER.raw_decode(stripped)
    except json.JSONDecodeError as error:
        raise BadRequest(f"bad JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        raise BadRequest("a number has more digits than are read; send it as a string") from None
    return value, end + len(text) - len(stripped)


_dumps: Any = ujson.dumps
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_scan = _DECODER.scan_once  # type: ignore[attr-defined]
_strict = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
