"""One WebSocket connection, and how an HTTP request becomes one. The only file that imports geventwebsocket, and mends it from outside.

`Connection` is for plain blocking code: `read` blocks its greenlet, `queue` never does, and all that goes out passes through one Outbox,
so that frames never mix. What messages mean, who is let in, and the reaper of the silent and the stalled are found in other rooms.

What is mended: no limits before storage; unmasked frames; close codes that were never sent; writers that mixed their bytes or blocked
for ever; no deadline for a handshake; wrong answers to bad ones; a destructor that wrote to the socket; 8 KiB of request kept by each.
"""

import contextlib
import functools
import logging
import socket
import time
from collections.abc import Sized
from typing import Any, Final

import gevent
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.websocket import WebSocket

from app.errors import Unavailable
from app.gateway.bare import at_once, bare
from app.gateway.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameBuffer, FrameError, Message, encode_close, encode_frame, parse_close
from app.gateway.handshake import Gate, Runner, is_upgrade
from app.gateway.identity import Grant
from app.gateway.requests import LINGER, RequestHandler
from app.gateway.shared import Common
from app.log import untold
from app.outbox import Outbox

log = logging.getLogger(__name__)

_SWITCHING: Final = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
_READABLE: Final = 1


class _Closing(Exception):
    """Thrown into the greenlet that reads, when another one has closed the connection."""


class Connection(WebSocket):  # type: ignore[misc]
    """A WebSocket connection from the server's side.

    `id` is for logs; `address` is the peer's. `grant` is what it may do, None before it has said who it is. `heard_at`, `pinged_at` and
    `closed_at` are by the monotonic clock, 0 for not yet; `close_code` is what either side gave on closing (1006: lost without a word);
    `unfinished` has a length while work goes on for this peer. Between construction and `attach` it is not open: what is sent waits in
    `_early`.
    """

    __slots__ = (
        "_at_once",
        "_common",
        "_early",
        "_frames",
        "_open",
        "_pending",
        "_sock",
        "_watcher",
        "address",
        "close_code",
        "closed",
        "closed_at",
        "grant",
        "heard_at",
        "id",
        "outbox",
        "path",
        "pinged_at",
        "unfinished",
    )

    def __init__(self, common: Common, path: str, address: str = "") -> None:
        self.id = f"c{next(common.numbers)}"
        self.path = path
        self.address = address
        self.grant: Grant | None = None
        self.closed = False
        self.close_code = 1006
        self.closed_at = 0.0
        self.unfinished: Sized = ()
        self._common = common
        self._open = False
        self._early: list[bytes] | None = []

    @property
    def subject(self) -> str:
        """Who it is; empty where nobody was asked, or it has not said yet."""
        return self.grant.subject if self.grant is not None else ""

    def __del__(self) -> None:
        """Nothing: the inherited one writes to the socket, from the garbage collector."""

    def attach(self, sock: Any, response: bytes, leftover: bytes) -> None:
        """Begin on this non-blocking socket, plain or sealed: `response` goes first, then what was sent early; `leftover` was read."""
        common = self._common
        self._sock = sock
        self._watcher = common.hub.loop.io(sock.fileno(), _READABLE)
        self._at_once = at_once(sock)
        self._frames = FrameBuffer(common.max_message)
        self._pending: Any = leftover or None
        self.outbox = Outbox(sock, common.turn, common.hub.loop, functools.partial(_hang_up, sock), patient=True)
        self.heard_at = time.monotonic()
        self.pinged_at = 0.0
        early, self._early = self._early, None
        self._open = not self.closed
        self.outbox.put(b"".join([response, *(early or ())]))
        common.connections.add(self)

    def read(self) -> list[Message] | None:
        """All whole messages (TEXT with `str`, BINARY with `bytes`) that came in at once, one at least; None once the connection is over.

        Pings are answered and close frames handled here. It waits first and then reads at most 8 KiB, so that others get their turn;
        it also waits while more than half of `max_unsent` is unsent: a peer that does not read is not read from.
        """
        while not self.closed:
            try:
                messages = self._receive()
            except _Closing:
                break
            except FrameError as error:
                self.close(error.code, error.reason)
                break
            except (OSError, Unavailable):
                self.abort()
                break
            if messages:
                return messages
        return None

    def _receive(self) -> list[Message]:
        common = self._common
        if self.outbox.unsent > common.max_unsent >> 1:
            self.outbox.wait_below(common.max_unsent >> 1)
            if self.closed:
                return []
        if self._pending is not None:
            return self._take_pending(self._pending)
        common.hub.wait(self._watcher)
        try:
            data = self._sock.recv(self._at_once)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionResetError("the stream ended without a close frame")
        self.heard_at = time.monotonic()
        messages = self._frames.feed(data)
        return self._attend(messages) if self._frames.attention else messages

    def _attend(self, messages: list[Message]) -> list[Message]:
        """Answer pings; the data messages among these. A close frame or a fault behind them waits until they have been dealt with."""
        for opcode, payload in messages:
            if opcode == PING:
                self.queue(bytes(payload), PONG)  # type: ignore[arg-type]
            elif opcode == CLOSE:
                self._pending = payload
        if self._frames.error is not None:
            self._pending = b""
        return [message for message in messages if message[0] < CLOSE]

    def _take_pending(self, pending: Any) -> list[Message]:
        self._pending = None
        if not self._frames.ended:  # read along with the handshake
            messages = self._frames.feed(pending)
            return self._attend(messages) if self._frames.attention else messages
        gevent.sleep(0)  # greenlets begun for the messages before it may answer first
        if self._frames.error is not None:
            self.close(self._frames.error.code, self._frames.error.reason)
        elif not self.closed:
            self._close(encode_frame(CLOSE, pending[:2]), parse_close(pending)[0])
        return []

    def queue(self, payload: bytes, opcode: int = TEXT) -> None:
        """One whole frame; never blocks. Once closed nothing happens. A peer that leaves more than `max_unsent` unread is closed: 1013."""
        if not self._open:
            if self._early is not None and not self.closed:
                self._early.append(encode_frame(opcode, payload))
            return
        outbox = self.outbox
        if outbox.unsent > self._common.max_unsent:
            outbox.flush()  # what this turn has queued may just not have been tried yet
            if outbox.unsent > self._common.max_unsent:
                self.close(1013, "what was sent is not being read")
                return
        outbox.put(encode_frame(opcode, payload))

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Send a text (`str`) or a binary message; blocks while more than `max_unsent` is unsent. `Unavailable` once it is closed."""
        payload = message.encode() if isinstance(message, str) else bytes(message)
        text = isinstance(message, str) if binary is None else not binary
        if self._open:
            self.outbox.wait_below(self._common.max_unsent)
        if self.closed:
            raise Unavailable("the connection is closed")
        self.queue(payload, TEXT if text else BINARY)

    def ping(self, now: float) -> None:
        """Ask whether the peer is there; any frame of it is an answer."""
        self.pinged_at = now
        self.queue(b"", PING)

    @property
    def waiting(self) -> bool:
        """Whether the reader waits for the peer, and not for us or for room."""
        return bool(self._watcher.active)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye: what is queued still goes out, then the close frame, nothing after. `ValueError` for a code that may not be sent."""
        if self.closed:
            return
        self._close(encode_close(code, reason), code)

    def _close(self, frame: bytes, code: int) -> None:
        self._over()
        self.close_code = code
        if self._early is not None:
            self._early.append(frame)
            return
        self.outbox.put(frame)
        self._common.hub.cancel_wait(self._watcher, _Closing)

    def abort(self) -> None:
        """End it at once, without a word; wakes whoever waits for anything here."""
        self._over()
        if self._early is None:
            self.outbox.close()
            _hang_up(self._sock)

    def _over(self) -> None:
        self._open = False
        if not self.closed:
            self.closed = True
            self.closed_at = time.monotonic()

    def live(self, run: Runner) -> None:
        """Its whole life after the handshake, in a greenlet of its own: `run`, then what is unsent, then a while for the peer to end it."""
        try:
            try:
                run()
            except Exception as error:
                log.error("connection-failed", exc_info=untold(error), extra={"connection": self.id})
                self.close(1011, "something went wrong here")
            self.close()
            self._linger()
        except (OSError, Unavailable, _Closing) as error:
            log.debug("connection-lost: %s", error, extra={"connection": self.id})
        finally:
            self._release()

    def _linger(self) -> None:
        """The reaper ends the wait where nothing goes out any more."""
        self.outbox.flush()
        self.outbox.wait_below(0)
        self._sock.shutdown(socket.SHUT_WR)
        with gevent.Timeout(LINGER, False):
            while True:
                self._common.hub.wait(self._watcher)
                if not self._sock.recv(65536):
                    return

    def _release(self) -> None:
        # watchers first: a descriptor that is closed may be somebody else's in the same turn
        self.outbox.close()
        self._watcher.stop()
        self._watcher.close()
        self._sock.close()
        self.unfinished = ()
        self._common.connections.discard(self)


def _hang_up(sock: Any) -> None:
    """Wakes whoever reads from it. Not a method: a connection that is over leaves no cycle for the garbage collector."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class Handler(RequestHandler, WebSocketHandler):  # type: ignore[misc]
    """The requests on one socket, for a pywsgi server with a `gate` and `common`; what is no upgrade goes to its application."""

    logger = log  # the inherited one sets up a logger of its own

    def upgrade_websocket(self) -> None:
        """Make `websocket` where the request asks for one and may have it; raises `Refused` where it may not."""
        if not is_upgrade(self.environ):
            return
        self.close_connection = True
        gate: Gate = self.server.gate
        accept = gate.check(self.environ)
        self.websocket = Connection(self.server.common, self.environ["PATH_INFO"], self.environ.get("REMOTE_ADDR", ""))
        self._run = gate.ask(self.websocket, self.environ, self.rfile.deadline)
        self._response = f"{_SWITCHING}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()

    def run_websocket(self) -> None:
        """Hand the socket over to a greenlet with a shallow stack; request, environment and this handler go away."""
        sock, leftover = bare(self.socket, self.rfile.leftover)
        self.socket = None
        self.websocket.attach(sock, self._response, leftover)
        gevent.spawn_raw(self.websocket.live, self._run)
