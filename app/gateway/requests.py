"""The HTTP requests on one socket, until an application gets them: whole heads, a deadline, a limit, and refusals that arrive.

`Head` stands where pywsgi expects a file to read from: it takes in the whole head of a request first, however slowly the bytes come;
the lines are then read from memory, and what came after the head waits in `leftover`. A body is read only where an application asks for
it (`app/gateway/peer.py`); where none does, no other request follows on the socket.
"""

import contextlib
import io
import logging
import re
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

import gevent
from gevent.pywsgi import Input, WSGIHandler

from app.errors import BadRequest
from app.gateway.chunked import length_of
from app.gateway.peer import PEER, Peer

log = logging.getLogger(__name__)

MAX_HEAD: Final = 64 * 1024
"""The most bytes in a request line and its headers."""

LINGER: Final = 2.0
"""How long, in seconds, a peer may still send after our last word; a plain close would reset it, and it would never see that word."""


_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_FIELD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00\r\n]*")
_FIXED: Final = (("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff"), ("Connection", "close"))


class Refused(Exception):
    """The request cannot be served: an HTTP status, a line of text that says why, and further headers."""

    def __init__(self, status: str, why: str, *headers: tuple[str, str]) -> None:
        super().__init__(f"{status}: {why}")
        self.status = status
        self.why = why
        self.headers = headers

    def response(self, with_body: bool = True) -> bytes:
        """The whole response; the connection is closed after it."""
        body = self.why.encode() + b"\n"
        headers = [*_FIXED, ("Content-Length", str(len(body))), *self.headers]
        head = "\r\n".join([f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")
        return head + body if with_body else head


class Head:
    """The heads of the requests on one socket, one after the other; `timeout` is in seconds for each, and counts from `fill`."""

    closed = False  # pywsgi asks every file

    def __init__(self, sock: Any, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self._lines: list[bytes] = []
        self.leftover = b""
        self.length = 0  # of the body behind it
        self.deadline = 0.0

    def fill(self) -> bool:
        """Take in one head; False where the stream ends or stays silent before it. Raises `Refused` where it is too long or too late."""
        self.deadline = time.monotonic() + self._timeout
        try:
            return self._fill()
        finally:
            self._sock.settimeout(self._timeout)  # of the answer

    def _fill(self) -> bool:
        data = bytearray(self.leftover.lstrip(b"\r\n"))
        searched = 0
        while (end := data.find(b"\r\n\r\n", searched)) < 0:
            if len(data) > MAX_HEAD:
                raise _too_long()
            searched = max(0, len(data) - 3)
            more = self._receive(begun=bool(data))
            if not more:
                return False
            data += more if data else more.lstrip(b"\r\n")
        if end > MAX_HEAD:
            raise _too_long()
        lines = _checked(bytes(data[:end]).split(b"\r\n"))
        self._lines = [line + b"\r\n" for line in lines][::-1]
        self.leftover = bytes(data[end + 4 :])
        self.length = _length_of(lines)
        return True

    def _receive(self, begun: bool) -> bytes:
        try:
            self._sock.settimeout(max(0.001, self.deadline - time.monotonic()))
            return self._sock.recv(8192)  # type: ignore[no-any-return]
        except TimeoutError:
            if begun:
                raise Refused("408 Request Timeout", f"the headers took more than {self._timeout:g} seconds") from None
            return b""
        except OSError:  # reset: nobody is there to be answered
            return b""

    def take(self, deadline: float) -> bytes:
        """Bytes behind the head: those that are here already, or what comes next; none at the end of the stream. Raises `TimeoutError`."""
        if self.leftover:
            data, self.leftover = self.leftover, b""
            return data
        self._sock.settimeout(max(0.001, deadline - time.monotonic()))
        return self._sock.recv(8192)  # type: ignore[no-any-return]

    def readline(self, size: int = -1) -> bytes:
        """The next line of the head, or its first `size` bytes; empty after the last."""
        if not self._lines:
            return b""
        line = self._lines.pop()
        if 0 <= size < len(line):
            self._lines.append(line[size:])
            line = line[:size]
        return line

    def close(self) -> None:
        """The socket belongs to others."""


def _checked(lines: list[bytes]) -> list[bytes]:
    """The lines of a head; the parser behind us passes over what is malformed, and over all that follows it."""
    if _CONTROL.search(lines[0]) or not all(_FIELD.fullmatch(line) for line in lines[1:]):
        raise Refused("400 Bad Request", "a line of the head is malformed")
    return lines


def _length_of(lines: list[bytes]) -> int:
    try:
        return length_of(lines)
    except BadRequest as error:
        raise Refused("400 Bad Request", error.message) from None


def refuse_body(environ: Mapping[str, Any]) -> None:
    """Raises `Refused` for a request with a body."""
    if environ[PEER].unread:
        raise Refused("413 Content Too Large", "no request has a body here")


def _too_long() -> Refused:
    return Refused("431 Request Header Fields Too Large", f"the request line and its headers may have {MAX_HEAD} bytes")


class RequestHandler(WSGIHandler):  # type: ignore[misc]
    """The requests on one socket, for a pywsgi server with a `request_timeout`: seconds for a head, and that a kept socket may be idle."""

    socket: Any
    close_connection: bool

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, address, server, Head(sock, server.request_timeout))
        self._unheard = True
        server.unheard += 1

    def handle_one_request(self) -> bool | None:
        """True where another request may follow; None where the socket is to be closed, or belongs to somebody else now."""
        try:
            answer = super().handle_one_request() if self._fill() else None
        except Refused as refused:
            answer = refused.status, refused.response()
        if answer is True or self.socket is None:
            gevent.sleep(0)  # one that sends request after request has its turn, as everyone has
            return answer
        with contextlib.suppress(OSError):
            if answer is not None:
                self.socket.sendall(answer[1])
            self._linger()
        return None

    def _fill(self) -> bool:
        try:
            filled: bool = self.rfile.fill()
        finally:
            if self._unheard:
                self._unheard = False
                self.server.unheard -= 1
        return filled

    def _linger(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        with gevent.Timeout(LINGER, False):
            while self.socket.recv(65536):
                continue

    def get_environ(self) -> dict[str, Any]:
        """As pywsgi does, but the body is had from the `Peer`, and is nobody else's to discard."""
        environ: dict[str, Any] = super().get_environ()
        waits = environ.get("HTTP_EXPECT", "").lower() == "100-continue" and self.request_version == "HTTP/1.1"
        self._peer = environ[PEER] = Peer(self.socket, self.rfile, self.rfile.length, self.server.request_timeout, waits)
        self.wsgi_input = environ["wsgi.input"] = Input(io.BytesIO(), 0)
        return environ

    def finalize_headers(self) -> None:
        """As pywsgi does. What is left of a body would be taken for the next request, so there is none; a HEAD has no chunks."""
        if self._peer.unread and not self.close_connection:
            self.close_connection = True
            self.response_headers.append((b"Connection", b"close"))
        super().finalize_headers()
        if self.command == "HEAD":
            self.response_use_chunked = False

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        if not isinstance(error, Refused):
            log.debug("bad-request: %s: %s", self.client_address, error)
            error = Refused("400 Bad Request", "this is not a request that can be read")
        return error.status, error.response()

    def handle_one_response(self) -> None:
        """As pywsgi does, and the server knows of it."""
        self.server.answering += 1
        try:
            super().handle_one_response()
        finally:
            self.server.answering -= 1

    def run_application(self) -> None:
        """As pywsgi does, and answers a `Refused` that the application raised."""
        try:
            super().run_application()
        except Refused as refused:
            self.close_connection = True
            self.status = refused.status
            self._sendall(refused.response(with_body=self.command != "HEAD"))

    def handle_error(self, kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        """What went wrong while a response was made; a peer that is gone is none of our business."""
        self.close_connection = True
        if isinstance(error, OSError):
            log.debug("request-lost: %s: %s", self.client_address, error)
            return
        log.error("request-failed: %s", self.requestline, exc_info=(kind, error, traceback))
        self._send_error_response_if_possible(500)

    def log_request(self) -> None:
        """One line a response, for who looks closely."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("request: %s", self.format_request())
