"""The WebSocket under a session: opened once, read by one thread, written by another, bounded. `websocket-client` does the frames.

Opening it again is done in `app/remote/connection.py`.
"""

import queue
import socket
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import websocket
from websocket import ABNF

from app.address import Address
from app.errors import RemoteError, SettingsError, Unavailable

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""The longest message that is taken from a gateway, in bytes: it was chosen to be trusted, but not with all of our memory."""

NORMAL: Final = 1000

TROUBLE: Final = (websocket.WebSocketException, OSError, ValueError)
"""What reading, writing and opening may raise; a `ValueError` is of text that is no UTF-8, or of a URL that is none."""

_NOT_FOR_US: Final = {401: "unauthorized", 403: "forbidden"}
"""The HTTP statuses of a handshake after which the same would be said again."""

Frame = tuple[int, bytes]
"""An opcode and a payload."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a connection is; seconds.

    The n-th wait after a loss is, at random, from half of `first_delay` * 2^n to all of it, at most `max_delay`; a connection that lasted
    for `settled` starts them anew. After `quiet` seconds of silence a ping asks whether anybody is there; `patience` is for the answer, and
    for each step of opening. `gap` is how long an event that is missing before another is waited for.
    """

    first_delay: float = 0.25
    max_delay: float = 15.0
    settled: float = 5.0
    quiet: float = 15.0
    patience: float = 8.0
    gap: float = 2.0


class Silence(Exception):
    """Nobody has answered the ping."""


class RemoteSocket(websocket.WebSocket):
    """As the library has it, with a bound on what a message may take, and never writing while it reads."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.outgoing: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._taken = 0

    def read(self, pace: Pace) -> Frame:
        """The next frame or message. Pings after silence, and raises `Silence` where that is not answered either."""
        self._taken = 0
        try:
            return self._receive()
        except websocket.WebSocketTimeoutException:
            self.outgoing.put((ABNF.OPCODE_PING, b""))
        try:
            self.settimeout(pace.patience)
            return self._receive()
        except websocket.WebSocketTimeoutException:
            raise Silence from None
        finally:
            self.settimeout(pace.quiet)

    def _receive(self) -> Frame:
        opcode, frame = self.recv_data_frame(control_frame=True)
        return opcode, bytes(frame.data)

    def write(self) -> None:
        """Write what is queued, until there is a None; where that fails, the reader is woken, and says what became of it."""
        try:
            while (frame := self.outgoing.get()) is not None:
                self.send(frame[1], frame[0])
        except TROUBLE:
            self.abort()  # type: ignore[no-untyped-call]

    def pong(self, payload: str | bytes = b"") -> None:
        """Called while a ping is read."""
        self.outgoing.put((ABNF.OPCODE_PONG, payload.encode() if isinstance(payload, str) else payload))

    def send_close(self, status: int = NORMAL, reason: str | bytes = b"") -> None:
        """Called while a close frame is read: the answer to it."""
        self.outgoing.put((ABNF.OPCODE_CLOSE, status.to_bytes(2, "big")))

    def _recv(self, bufsize: int) -> bytes:
        data: bytes = super()._recv(bufsize)  # type: ignore[no-untyped-call]
        self._taken += len(data)
        if self._taken > MAX_MESSAGE:
            raise websocket.WebSocketPayloadException(f"a message of more than {MAX_MESSAGE} bytes")
        return data


@dataclass(frozen=True, slots=True)
class Gate:
    """A gateway, and how to be let in: `token` goes into the Authorization header, never into the `url`; `ca` is a file (PEM) with the
    authority of its certificate, empty for those that the system trusts."""

    url: str
    token: str = field(default="", repr=False)
    ca: str = ""

    def options(self) -> dict[str, Any]:
        """As the library wants them."""
        header = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"header": header, "sslopt": {"ca_certs": self.ca} if self.ca else {}}


def open_socket(gate: Gate, pace: Pace) -> RemoteSocket:
    """A connection after its handshake; raises `Unavailable`, or `RemoteError` where we are not let in, and would not be the next time."""
    own = None
    url = gate.url
    try:
        own = _dial(url, pace.patience)
        where = "ws://localhost/ws" if url.startswith("unix:") else url
        opened = websocket.create_connection(where, pace.patience, class_=RemoteSocket, suppress_origin=True, socket=own, **gate.options())
        opened.settimeout(pace.quiet)
    except websocket.WebSocketBadStatusException as error:
        _drop(own)
        if error.status_code in _NOT_FOR_US:
            raise RemoteError(_NOT_FOR_US[error.status_code], f"{url} does not let us in: {_said(error)}") from None
        raise Unavailable(f"{url} does not let us in: HTTP status {error.status_code}") from error
    except TROUBLE as error:
        _drop(own)
        raise Unavailable(f"nobody answers at {url}: {error}") from error
    assert isinstance(opened, RemoteSocket)
    return opened


def _said(error: websocket.WebSocketBadStatusException) -> str:
    """What the gateway says to it; the first line of what may be anything."""
    text = bytes(error.resp_body or b"").decode("utf-8", "replace").partition("\n")[0]
    return text[:200] or f"HTTP status {error.status_code}"


def _dial(url: str, timeout: float) -> socket.socket | None:
    """A socket to this machine; None for others, which the library reaches, through a proxy where the environment names one."""
    try:
        address = Address.parse(url if url.startswith("unix:") else urlsplit(url).netloc)
    except SettingsError:
        return None
    if not address.is_loopback or url.startswith("wss:"):
        return None
    if address.path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(address.path)
        except OSError:
            sock.close()
            raise
        return sock
    sock = socket.create_connection((address.host, address.port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _drop(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()
