"""A WebSocket client made of a plain blocking socket: it sends exactly the bytes that a test gives it, right or wrong."""

import os
import socket
import struct
from typing import Self

from app.gateway.frames import CLOSE, TEXT, FrameBuffer, Message, encode_frame, parse_close

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The key and its answer that RFC 6455 1.3 has for an example."""


def client_frame(opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, mask: bytes | None = None) -> bytes:
    """A masked frame; an empty `mask` leaves it unmasked."""
    mask = os.urandom(4) if mask is None else mask
    plain = encode_frame(opcode, payload)
    first = (0x80 if final else 0) | reserved << 4 | opcode
    header = plain[: len(plain) - len(payload)]
    if not mask:
        return bytes([first]) + header[1:] + payload
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([first, header[1] | 0x80]) + header[2:] + mask + masked


def text_frame(text: str) -> bytes:
    """A whole text message."""
    return client_frame(TEXT, text.encode())


def announced(opcode: int, length: int) -> bytes:
    """The header alone of a frame that is said to have `length` bytes."""
    return struct.pack("!BBQ", 0x80 | opcode, 0xFF, length) + b"mask"


def request(path: str = "/ws", port: int = 0, **headers: str | None) -> bytes:
    """The head of an upgrade; `headers` replace those it has, or with None take them out (`_` stands for `-`)."""
    fields: dict[str, str | None] = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    for name, value in headers.items():
        fields[next((known for known in fields if known.lower() == name.replace("_", "-").lower()), name.replace("_", "-"))] = value
    lines = [f"GET {path} HTTP/1.1"] + [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class RawClient:
    """One connection; `closed` is the code and the reason of the close frame that came."""

    def __init__(self, port: int, path: str = "/ws", *, timeout: float = 10.0, receive_buffer: int = 0, upgrade: bool = True) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed: tuple[int, str] | None = None
        self.controls: list[Message] = []
        self._frames = FrameBuffer(1 << 30, require_mask=False)
        self._messages: list[Message] = []
        if upgrade:
            self._upgrade(path, port)

    def _upgrade(self, path: str, port: int) -> None:
        self.send(request(path, port))
        status, _, rest = self.head()
        if status != 101:
            self.socket.close()
            raise AssertionError(f"{status}: {rest!r}")
        self._take(rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        """These bytes, as they are."""
        self.socket.sendall(b"".join(data))

    def head(self) -> tuple[int, dict[str, str], bytes]:
        """The status, the headers (names in lower case) and the bytes after them."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError(data)
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in fields}, rest

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """As `head`, with the whole body: to the end of the stream."""
        status, headers, body = self.head()
        while more := self.receive():
            body += more
        return status, headers, body

    def receive(self) -> bytes:
        """What comes next; nothing at the end of the stream, however that comes."""
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def message(self) -> str | bytes | None:
        """The next data message; None at the end of the stream or at a close frame."""
        while not self._messages:
            data = self.receive() if self.closed is None else b""
            if not data:
                return None
            self._take(data)
        return self._messages.pop(0)[1]

    def drain(self) -> tuple[int, str] | None:
        """Read to the end: the code and the reason of the close frame, where one came."""
        while data := self.receive():
            self._take(data)
        return self.closed

    def wait_control(self, opcode: int) -> bytes:
        """The payload of the next control frame of that kind."""
        while True:
            for control in self.controls:
                if control[0] == opcode:
                    self.controls.remove(control)
                    assert isinstance(control[1], bytes)
                    return control[1]
            data = self.receive()
            assert data, "the connection ended"
            self._take(data)

    def _take(self, data: bytes) -> None:
        for opcode, payload in self._frames.feed(data):
            if opcode == CLOSE:
                assert isinstance(payload, bytes)
                self.closed = parse_close(payload)
            elif opcode > CLOSE:
                self.controls.append((opcode, payload))
            else:
                self._messages.append((opcode, payload))
