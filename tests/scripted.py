"""A WebSocket server that does what a test tells it to, to try the Python session against connections that drop, repeat, refuse and fall
silent. Not a gateway: it knows no rule of its own but to answer pings while it is not deaf. The like in JavaScript is node/scripted.js."""

import base64
import hashlib
import json
import socket
import threading
from contextlib import suppress
from typing import Any, Self

from app.gateway.frames import CLOSE, PING, PONG, TEXT, FrameBuffer, encode_frame
from app.remote import Session
from app.remote.socket import Pace
from tests.harness import wait_until

HASTE = Pace(first_delay=0.004, max_delay=0.04, settled=1.0, quiet=10.0, patience=5.0, gap=0.1)
"""What takes seconds otherwise takes milliseconds here."""


class Peer:
    """One connection, as the server sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.received: list[Any] = []
        self.pings = 0
        self.deaf = False
        self.closed: int | None = None
        self.over = False
        self._frames = FrameBuffer(1 << 24)
        threading.Thread(target=self._serve, daemon=True).start()

    def heard(self, count: int) -> list[Any]:
        """What came, once there are so many."""
        return wait_until(
            lambda: self.received[:] if len(self.received) >= count else [], 5.0, lambda: f"message {count} of {self.received}"
        )

    def say(self, *messages: Any) -> None:
        """Objects, or texts as they are."""
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            self.socket.sendall(encode_frame(TEXT, text.encode()))

    def ping(self, payload: bytes) -> None:
        self.socket.sendall(encode_frame(PING, payload))

    def drop(self) -> None:
        """End it without a word."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self, code: int, reason: str = "") -> None:
        """End it as the protocol has it."""
        self.socket.sendall(encode_frame(CLOSE, code.to_bytes(2, "big") + reason.encode()))

    def _serve(self) -> None:
        with suppress(OSError), self.socket:
            self._take(self._handshake())
            while data := self.socket.recv(65536):
                self._take(data)
        self.over = True

    def _handshake(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(65536)
        head, _, rest = data.partition(b"\r\n\r\n")
        key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        self.socket.sendall(switching + accept + b"\r\n\r\n")
        return rest

    def _take(self, data: bytes) -> None:
        for opcode, payload in self._frames.feed(data):
            if opcode == TEXT:
                self.received.append(json.loads(payload))
            elif opcode == CLOSE:
                self.closed = int.from_bytes(payload[:2], "big")  # type: ignore[arg-type]
                if not self.deaf:
                    self.drop()
            elif opcode == PING:
                self.pings += 1
                if not self.deaf:
                    self.socket.sendall(encode_frame(PONG, payload))  # type: ignore[arg-type]
            else:
                self.received.append((opcode, payload))


class Scripted:
    """Listens until the block ends; `peers` are the connections there were, in order."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws"
        self.peers: list[Peer] = []
        self._sessions: list[Session] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        for peer in self.peers:
            peer.drop()
        for session in self._sessions:
            session.close()

    def refuse(self) -> None:
        """Take no other connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def session(self, pace: Pace = HASTE, **options: Any) -> Session:
        """In a hurry; closed with the server."""
        self._sessions.append(Session(self.url, pace=pace, **options))
        return self._sessions[-1]

    def peer(self, number: int) -> Peer:
        """The connection of that number, from 1."""
        wait_until(lambda: len(self.peers) >= number, 5.0, f"connection {number}")
        return self.peers[number - 1]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.peers.append(Peer(self._listener.accept()[0]))


def story(task_id: str) -> list[dict[str, Any]]:
    """The events of a task as a gateway numbers them."""
    return [
        {"id": task_id, "event": "accepted", "seq": 1, "position": 0},
        {"id": task_id, "event": "started", "seq": 2, "attempt": 1, "worker": "worker-1"},
        {"id": task_id, "event": "progress", "seq": 3, "attempt": 1, "done": 1, "total": 2},
        {"id": task_id, "event": "progress", "seq": 4, "attempt": 1, "done": 2, "total": 2, "note": "all"},
        {"id": task_id, "event": "succeeded", "seq": 5, "attempt": 1, "result": {"sent": 2}},
    ]


def unknown(task_id: str) -> dict[str, Any]:
    """The refusal of an attach to a task that was forgotten."""
    return {"id": task_id, "error": {"code": "unknown_task", "message": "no task"}}
