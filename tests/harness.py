"""What our own tests stand on beside `app/testing.py`: raw clients of both ports, that send and receive what a test wants to see."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any, Self

import websocket

from app.testbed import ROOT, START_LIMIT, Process, Server, wait_until

__all__ = ["FINAL", "ROOT", "START_LIMIT", "Client", "Process", "Server", "TextClient", "WsClient", "wait_until"]

FINAL = frozenset(("succeeded", "failed", "timed_out", "cancelled", "interrupted"))


class Client:
    """What both kinds of client have in common."""

    def send(self, message: Any) -> None:
        raise NotImplementedError

    def receive(self, timeout: float = 10.0) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def ask(self, message: Any, timeout: float = 10.0) -> Any:
        """Send, and receive one message."""
        self.send(message)
        return self.receive(timeout)

    def until(self, predicate: Callable[[Any], bool], timeout: float = 10.0) -> Any:
        """The first message from now on of which the predicate is true."""
        deadline = time.monotonic() + timeout
        while not predicate(message := self.receive(max(0.01, deadline - time.monotonic()))):
            pass
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TextClient(Client):
    """A raw socket that speaks lines; sends and receives JSON, or bytes just as they are."""

    def __init__(self, address: tuple[str, int] | str, timeout: float = 10.0) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self._file = self.socket.makefile("rb")

    def send(self, message: Any) -> None:
        """One object as a line, or these very bytes."""
        self.socket.sendall(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float = 10.0) -> Any:
        """The next line, decoded; fails where the connection ends instead."""
        line = self.receive_line(timeout)
        assert line, "the connection ended"
        return json.loads(line)

    def receive_line(self, timeout: float = 10.0) -> bytes:
        """The next line as it came, or nothing at the end of the connection."""
        self.socket.settimeout(timeout)
        return self._file.readline()

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self.socket.close()


class WsClient(Client):
    """websocket-client, with JSON in and out; `messages` keeps all that was received."""

    def __init__(self, url: str, timeout: float = 10.0, **options: Any) -> None:
        self.socket = websocket.create_connection(url, timeout=timeout, **options)
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        """One object, or a text just as it is."""
        self.socket.send(message if isinstance(message, str) else json.dumps(message))

    def receive(self, timeout: float = 10.0) -> Any:
        """The next message, decoded where it is JSON; raises what websocket-client raises where the connection ends."""
        self.socket.settimeout(timeout)
        text = self.socket.recv()
        try:
            message = json.loads(text)
        except ValueError:
            message = text
        self.messages.append(message)
        return message

    def final(self, task_id: str, timeout: float = 10.0) -> Any:
        """The final event of this task, from now on."""
        return self.until(lambda message: message.get("id") == task_id and message.get("event") in FINAL, timeout)

    def close(self) -> None:
        """Close the connection, with the handshake."""
        self.socket.close()
