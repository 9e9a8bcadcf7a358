"""A worker in the hands of a test: it listens as one, says who it is, keeps what a gateway sends, and says back just what it is told to."""

import json
import queue
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

FUNCTIONS: tuple[dict[str, Any], ...] = (
    {"name": "once", "options": {}},
    {"name": "again", "options": {"retryable": True, "attempts": 3, "backoff": 0.02}},
    {"name": "limited", "options": {"max_running": 3}},
    {"name": "isolated", "options": {"run_in": "process"}},
)


Inbox = queue.Queue[tuple["FakeWorker", Any]]
"""What came, and to whom."""


class FakeWorker:
    """Listens on a free port until the block ends. While it is not `answering`, pings stay without an answer.

    Tasks, cancels and recalls go to its inbox, which several may share.
    """

    def __init__(self, inbox: Inbox | None = None, *, slots: int = 10, process_slots: int = 1, siblings: int = 1) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.answering = True
        self.claims: list[Any] = []
        self.acknowledged = 0
        self._description = {
            "functions": [{"doc": "", "params": [], **function} for function in FUNCTIONS],
            "instance": uuid.uuid4().hex,
            "pid": 1,
            "name": "fake",
            "slots": slots,
            "process_slots": process_slots,
            "siblings": siblings,
        }
        self.inbox: Inbox = queue.Queue() if inbox is None else inbox
        self._gateways: list[socket.socket] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._gone = False
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        for thread in self._threads:
            thread.join()

    def say(self, message: Any) -> None:
        """Send one message, or bytes just as they are, on the newest connection."""
        self._gateways[-1].sendall(message if isinstance(message, bytes) else _line(message))

    def report(self, task: Any, *events: str, **fields: Any) -> None:
        """Say these events of a task that came, numbered on from what it came with; `fields` go into the last."""
        for seq, event in enumerate(events, task["seq"] + 1):
            extra = fields if event == events[-1] else {}
            self.say({"id": task["id"], "event": event, "seq": seq, "attempt": task["attempt"], **extra})

    def succeed(self, task: Any, result: Any = None) -> None:
        """Start it and end it."""
        self.report(task, "started", "succeeded", result=result)

    def cut(self) -> None:
        """End every connection."""
        with self._lock:
            while self._sockets:
                with suppress(OSError):  # its other end was faster
                    self._sockets.pop().shutdown(socket.SHUT_RDWR)

    def restart(self) -> None:
        """A new process has taken its place: it knows nothing of what came before."""
        self._description["instance"] = uuid.uuid4().hex
        self.cut()

    def leave(self) -> None:
        """Nobody is there any more."""
        self._gone = True
        with suppress(OSError):  # once is enough
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # no longer listening
            while True:
                connection = self._listener.accept()[0]
                with self._lock:
                    if self._gone:
                        connection.close()
                        return
                    self._sockets.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=[connection]))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for message in _messages(connection):
                self._take(connection, message)

    def _take(self, connection: socket.socket, message: Any) -> None:
        if "describe" in message:
            connection.sendall(_line({"describe": self._description}))
        elif "claim" in message:
            self._gateways.append(connection)
            self.claims.append(message)
        elif "ack" in message:
            self.acknowledged += message["ack"]
        elif "ping" not in message:
            self.inbox.put((self, message))
        elif self.answering:
            connection.sendall(_line({"pong": message["ping"]}))


def _messages(connection: socket.socket) -> Iterator[Any]:
    with connection.makefile("rb") as lines:
        for line in lines:
            yield json.loads(line)


def _line(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
