"""Talking to task workers from plain blocking code: one connection, and a client that keeps a few of them.

Works with and without gevent (patched sockets make it cooperative) and needs nothing but ujson. Tasks called from here go straight to the
workers: they are not journalled, and not retried. What the lines mean is in `app.messages`.
"""

import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from app import wire
from app.address import Address
from app.entrance import Credentials
from app.errors import BadRequest, HandoffError, RemoteError, TooLarge, Unavailable
from app.messages import FINAL_EVENTS, new_id

MAX_LINE = 64 * 1024 * 1024
"""The longest line that a client takes from a worker, in bytes: it has chosen to trust it, but not with all of its memory."""

_FINAL = frozenset(event.value for event in FINAL_EVENTS)
_RECV = 64 * 1024


class TaskConnection:
    """One connection to a worker's Text port. Raises `Unavailable` where nobody answers, or the connection is lost, and `Unauthorized`
    where one side does not believe the other."""

    def __init__(
        self, address: Address, timeout: float | None = 10.0, max_line: int = MAX_LINE, credentials: Credentials | None = None
    ) -> None:
        self.address = address
        self._max_line = max_line
        self._buffer = wire.LineBuffer(max_line)
        self._lines: list[bytes] = []
        self.socket = _connect(address, timeout, credentials or Credentials())

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; blocks until the system has taken it."""
        try:
            self.socket.sendall(wire.encode_line(message))
        except OSError as error:
            raise Unavailable(f"the connection to {self.address} is lost: {error}") from error

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message; raises `Unavailable` at the end of the connection or after `timeout` seconds."""
        while not self._lines:
            self._lines = self.read_lines(timeout)[::-1]
        try:
            message = wire.decode(self._lines.pop())
        except BadRequest as error:
            raise Unavailable(f"{self.address} does not speak the Text protocol: {error.message}") from error
        if type(message) is not dict:
            raise Unavailable(f"{self.address} does not speak the full form of the Text protocol")
        return message

    def read_lines(self, timeout: float | None = None) -> list[bytes]:
        """The lines that the next bytes complete; may be none. Raises `Unavailable` at the end, `TooLarge` past the limit."""
        try:
            self.socket.settimeout(timeout)
            data = self.socket.recv(_RECV)
        except OSError as error:
            raise Unavailable(f"no answer from {self.address}: {error}") from error
        if not data:
            raise Unavailable(f"{self.address} closed the connection")
        lines = self._buffer.feed(data)
        if self._buffer.overflowed:
            raise TooLarge(f"a line from {self.address}", self._max_line)
        return lines

    def request(self, message: dict[str, Any], timeout: float | None = 10.0) -> dict[str, Any]:
        """Send one message that has one answer (`describe`, `ping`), and return the answer."""
        self.send(message)
        answer = self.receive(timeout)
        if "error" in answer and "event" not in answer:
            raise _remote(answer["error"])
        return answer

    def events(
        self, function: str, args: dict[str, Any] | list[Any] | None = None, timeout: float | None = None, task_id: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Run a task and yield its events up to the final one; raises `RemoteError` where it is refused. `timeout`: between two events.

        `task_id` is a label on this connection, for who wants to cancel it.
        """
        yield from self._follow({"id": task_id or new_id(), "function": function, "args": args}, timeout)

    def call(self, function: str, args: dict[str, Any] | list[Any] | None = None, timeout: float | None = None) -> Any:
        """Run a task and return its result; raises `RemoteError` with the wire's code where it did not succeed."""
        (final,) = self._follow({"id": new_id(), "function": function, "args": args, "events": "final"}, timeout)
        if final["event"] != "succeeded":
            raise _remote(final["error"])
        return final["result"]

    def _follow(self, submit: dict[str, Any], timeout: float | None) -> Iterator[dict[str, Any]]:
        self.send({key: value for key, value in submit.items() if value is not None})
        event = ""
        while event not in _FINAL:
            message = self.receive(timeout)
            if "id" not in message and "error" in message:  # of a line too long to be read: nothing that follows would be
                self.close()
                raise _remote(message["error"])
            if message.get("id") != submit["id"]:
                continue  # what is left of a task that nobody waits for any more
            if "event" not in message:
                raise _remote(message["error"])
            event = message["event"]
            yield message

    def close(self) -> None:
        """End the connection; a task that runs goes on."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class TaskClient:
    """Calls tasks at one address, keeping connections between calls; one client may serve many threads or greenlets at once."""

    def __init__(self, address: str, timeout: float | None = None, credentials: Credentials | None = None) -> None:
        """`address` as in `--text` (`127.0.0.1:12345`, `unix:/path`, `tls://host:12345`); `timeout` in seconds for each answer, None to
        wait for ever; `credentials`: the secret that the workers want, and whose certificates are believed."""
        self._address = Address.parse(address)
        self._timeout = timeout
        self._credentials = credentials or Credentials()
        self._idle: list[TaskConnection] = []

    def call(self, function: str, args: dict[str, Any] | list[Any] | None = None) -> Any:
        """Run a task and return its result; raises `RemoteError` where it failed, `Unavailable` where nobody answered in time."""
        return self._ask(lambda connection: connection.call(function, args, self._timeout))

    def describe(self) -> dict[str, Any]:
        """The catalogue of functions and what the worker tells of itself."""
        description: dict[str, Any] = self._ask(lambda connection: connection.request({"describe": True}, self._timeout)["describe"])
        return description

    def _ask(self, ask: Callable[[TaskConnection], Any]) -> Any:
        """On an idle connection or a new one; it is kept where it is known what comes next on it."""
        connection = self._take()
        try:
            answer = ask(connection)
        except RemoteError:
            self._idle.append(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the connections that are idle."""
        while (connection := self._idle_one()) is not None:
            connection.close()

    def _take(self) -> TaskConnection:
        while (connection := self._idle_one()) is not None:
            if _is_quiet(connection.socket):
                return connection
            connection.close()
        return TaskConnection(self._address, credentials=self._credentials)

    def _idle_one(self) -> TaskConnection | None:
        try:
            return self._idle.pop()  # not after a look whether there is one: another thread may take it in between
        except IndexError:
            return None


def _connect(address: Address, timeout: float | None, credentials: Credentials) -> Any:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address.sockaddr)
        if not address.path:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return credentials.enter(sock, address)
    except HandoffError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise Unavailable(f"nobody answers at {address}: {error}") from error


def _is_quiet(sock: Any) -> bool:
    """Whether a kept connection is still open: nothing to read, and no end of the stream."""
    timeout = sock.gettimeout()
    try:
        sock.setblocking(False)
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        sock.settimeout(timeout)
        return True
    except OSError:
        return False
    return False


def _remote(error: Any) -> RemoteError:
    fields = dict(error) if type(error) is dict else {}
    return RemoteError(str(fields.pop("code", "internal")), str(fields.pop("message", error)), **fields)
