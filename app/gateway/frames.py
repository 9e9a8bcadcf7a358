"""WebSocket frames (RFC 6455), sans-IO: bytes in, whole messages out, and the other way about. No sockets, no pings answered, no policy.

What a peer does wrong becomes a `FrameError` with the close code that it has earned. Time is linear in what is fed, however it is cut into
pieces, and nothing past the limit is ever stored: a header that announces too much is refused before its payload is read.
"""

import codecs
import struct
from typing import Any, Final

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

Message = tuple[int, str | bytes]
"""An opcode with its payload: `str` for TEXT, `bytes` for all others."""

MAX_FRAGMENTS: Final = 4096
"""The most frames that one message may come in."""

MAX_CONTROL: Final = 125
"""The most bytes in a ping, a pong or a close frame."""

NO_CODE: Final = 1005
"""What stands for the code of a close frame that has none (`encode_frame(CLOSE, b"")`); it is never on the wire."""

_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_MOST_BY_INTEGER: Final = 1024
_ONES: Final = tuple(((1 << 32 * words) - 1) // 0xFFFFFFFF for words in range(_MOST_BY_INTEGER // 4 + 1))
_XOR: Final = tuple(bytes(byte ^ key for byte in range(256)) for key in range(256))
_unpack_start: Final = struct.Struct("!HHI").unpack_from
_pack_medium: Final = struct.Struct("!BBH").pack
_pack_long: Final = struct.Struct("!BBQ").pack
_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


class FrameError(Exception):
    """The peer broke the protocol or a limit, and framing is lost: close with `code` and `reason`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class FrameBuffer:
    """Cuts a stream of bytes into messages of at most `max_message` bytes.

    With `require_mask` it reads as a server must (RFC 6455 5.1), without it as a client. `attention` says that the last feed brought
    control frames or a fault, so that its messages cannot simply be passed on; `error` is the fault.
    """

    __slots__ = (
        "_decoder",
        "_fragments",
        "_limit",
        "_masked",
        "_need",
        "_opcode",
        "_partial",
        "_pieces",
        "_total",
        "attention",
        "ended",
        "error",
    )

    def __init__(self, max_message: int, require_mask: bool = True) -> None:
        self._limit = max_message
        self._masked = require_mask
        self._partial: bytearray | None = None  # a frame that is not whole; `_need` is how many bytes it takes, as far as is known
        self._need = 0
        self._pieces: list[str | bytes] | None = None  # of a message whose fragments come in; None between messages
        self._decoder: codecs.IncrementalDecoder | None = None
        self._opcode = CONTINUATION
        self._fragments = 0
        self._total = 0
        self.attention = False
        self.ended = False
        self.error: FrameError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages and control frames that `data` completes, in order; nothing after a close frame, whose payload `parse_close` reads.

        A fault raises `FrameError`: at once where nothing came before it in `data`, otherwise at the next feed (`error` has it already).
        """
        messages: list[Message] = []
        if self._partial is not None:
            data = self._joined(self._partial, data)
        try:
            self.attention = self.ended
            if not self.ended:
                self._parse(data, messages)
            elif self.error is not None:
                raise FrameError(self.error.code, self.error.reason)
        except FrameError as error:
            self._fail(error)
            if not messages:
                raise
        return messages

    def _joined(self, partial: bytearray, data: bytes) -> bytes:
        """The frame begun earlier together with `data`; nothing as long as it is not whole, so that each byte is copied once."""
        partial += data
        if len(partial) < self._need:
            return b""
        self._partial = None
        return bytes(partial)

    def _fail(self, error: FrameError) -> None:
        self.error = FrameError(error.code, error.reason)  # not itself: it leads back here, a cycle for the garbage collector
        self.attention = self.ended = True
        self._partial = self._pieces = self._decoder = None

    def _parse(self, data: bytes, messages: list[Message]) -> None:
        position = 0
        size = len(data)
        while position < size:
            if self._masked and self._pieces is None:
                position = self._parse_texts(data, position, messages)
                if position == size:
                    return
            end = self._parse_frame(data, position, messages)
            if end == position:
                self._partial = bytearray(data[position:])
                return
            position = end

    def _parse_texts(self, data: bytes, position: int, messages: list[Message]) -> int:
        """Take in what nearly all frames are, whole masked texts below 64 KiB, and stop at the first other one: its position."""
        size = len(data)
        limit = self._limit
        try:
            while size - position >= 8:
                first, second, third = _unpack_start(data, position)
                if first == 0x81FE:
                    start, length, mask = position + 8, second, third
                elif 0x8180 <= first < 0x81FE:
                    start, length, mask = position + 6, first - 0x8180, second << 16 | third >> 16
                else:
                    break
                end = start + length
                if end > size or length > limit:
                    break
                messages.append((TEXT, str(_unmask(data[start:end], length, mask), "utf-8")))
                position = end
        except UnicodeDecodeError:
            raise FrameError(1007, "text is not UTF-8") from None
        return position

    def _parse_frame(self, data: bytes, position: int, messages: list[Message]) -> int:
        """Take in a frame of any kind: its end, or `position` where it is not whole."""
        have = len(data) - position
        self._need = 2
        if have < 2:
            return position
        first, second = data[position], data[position + 1]
        self._check_kind(first, second)
        length = second & 0x7F
        header = 2 if length < 126 else 4 if length == 126 else 10
        self._need = header
        if have < header:
            return position
        if header > 2:
            length = int.from_bytes(data[position + 2 : position + header], "big")
        self._check_length(first & 0x0F, length)
        start = position + header + 4 * self._masked
        end = start + length
        self._need = end - position
        if have < self._need:
            return position
        payload = data[start:end]
        if self._masked:
            payload = _unmask(payload, length, int.from_bytes(data[start - 4 : start], "big"))
        return self._take(first, payload, messages, end, len(data))

    def _check_kind(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if first & 0x70:
            raise FrameError(1002, "reserved bits are set, but no extension was agreed")
        if opcode not in _OPCODES:
            raise FrameError(1002, f"opcode {opcode} is reserved")
        if (second >= 0x80) != self._masked:
            raise FrameError(1002, "frames of a client must be masked" if self._masked else "frames of a server must not be masked")
        if opcode >= CLOSE:
            if first < 0x80 or second & 0x7F > MAX_CONTROL:
                raise FrameError(1002, "a control frame must be whole and of at most 125 bytes")
        elif opcode == CONTINUATION and self._pieces is None:
            raise FrameError(1002, "a continuation of nothing")
        elif opcode != CONTINUATION and self._pieces is not None:
            raise FrameError(1002, "a new message within the fragments of another")

    def _check_length(self, opcode: int, length: int) -> None:
        """Before any of the payload is stored; a frame's share in a message counts together with those before it."""
        if opcode >= CLOSE:
            return
        if self._total + length > self._limit:
            raise FrameError(1009, f"a message may have {self._limit} bytes")
        if self._fragments >= MAX_FRAGMENTS:
            raise FrameError(1009, f"a message may come in {MAX_FRAGMENTS} fragments")

    def _take(self, first: int, payload: bytes, messages: list[Message], end: int, size: int) -> int:
        """Where to go on after this frame: at its end, or after a close frame at the end of everything."""
        opcode = first & 0x0F
        if opcode < CLOSE:
            self._take_data(opcode, first >= 0x80, payload, messages)
            return end
        self.attention = True
        messages.append((opcode, payload))
        if opcode != CLOSE:
            return end
        self.ended = True
        try:
            parse_close(payload)
        except FrameError:
            messages.pop()
            raise
        return size

    def _take_data(self, opcode: int, final: bool, payload: bytes, messages: list[Message]) -> None:
        if opcode != CONTINUATION:
            self._opcode = opcode
            self._decoder = _new_decoder() if opcode == TEXT else None
            self._pieces = []
        assert self._pieces is not None
        self._pieces.append(payload if self._decoder is None else _decoded(self._decoder, payload, final))
        self._total += len(payload)
        self._fragments += 1
        if final:
            empty: Any = "" if self._opcode == TEXT else b""
            messages.append((self._opcode, empty.join(self._pieces)))
            self._pieces = self._decoder = None
            self._total = self._fragments = 0


def _decoded(decoder: codecs.IncrementalDecoder, payload: bytes, final: bool) -> str:
    try:
        return decoder.decode(payload, final)
    except UnicodeDecodeError:
        raise FrameError(1007, "text is not UTF-8") from None


def _unmask(payload: bytes, length: int, mask: int) -> bytes:
    """`payload` with `mask`, a number of four bytes, taken off."""
    if length <= _MOST_BY_INTEGER:  # one number as long as the payload, XOR one that repeats the mask as often
        key = mask * _ONES[length + 3 >> 2] >> (-length & 3) * 8
        return (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")
    plain = bytearray(length)
    for offset, byte in enumerate(mask.to_bytes(4, "big")):
        plain[offset::4] = payload[offset::4].translate(_XOR[byte])
    return bytes(plain)


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """One whole unmasked frame, as a server sends it."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 0x10000:
        return _pack_medium(0x80 | opcode, 126, length) + payload
    return _pack_long(0x80 | opcode, 127, length) + payload


def is_close_code(code: int) -> bool:
    """Whether `code` may stand in a close frame (RFC 6455 7.4 and the codes registered since)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def encode_close(code: int, reason: str = "") -> bytes:
    """A close frame; a reason that is too long is cut between characters. Raises `ValueError` for a code that may not be sent."""
    if not is_close_code(code):
        raise ValueError(f"{code} is no close code that may be sent; take 1000 to 1003, 1007 to 1014, or 3000 to 4999")
    text = reason.encode()[: MAX_CONTROL - 2].decode(errors="ignore")
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text.encode())


def parse_close(payload: bytes) -> tuple[int, str]:
    """The code and the reason in a close frame's payload; (1005, "") for an empty one. Raises `FrameError`."""
    if not payload:
        return NO_CODE, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not is_close_code(code):
        raise FrameError(1002, "the close frame has no valid code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError(1007, "the reason for closing is not UTF-8") from None
