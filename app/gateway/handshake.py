"""What an upgrade to WebSocket must say (RFC 6455 4.2), from where it may come, and who serves it. No sockets and no frames."""

import base64
import binascii
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import gevent

from app.address import Address
from app.errors import HandoffError
from app.gateway import problems
from app.gateway.peer import PEER
from app.gateway.requests import Refused
from app.log import untold

log = logging.getLogger(__name__)

Runner = Callable[[], None]
"""Serves one connection, from its beginning to its end."""

Opener = Callable[[Any, Mapping[str, Any]], Runner]
"""Decides on a connection that is not open yet, from its request: who serves it, or `Forbidden`."""

UPGRADE_HEADERS: Final = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def is_upgrade(environ: Mapping[str, Any]) -> bool:
    """Whether the request asks for WebSocket, well or badly."""
    return "websocket" in _tokens(environ, "HTTP_UPGRADE")


def check_upgrade(environ: Mapping[str, Any], origins: frozenset[str]) -> str:
    """The `Sec-WebSocket-Accept` that answers this upgrade. Raises `Refused`.

    `origins` are compared as they are with the Origin header, never with Host, which whoever controls a name can make anything.
    """
    if environ["REQUEST_METHOD"] != "GET":
        raise Refused("405 Method Not Allowed", "an upgrade to WebSocket is a GET", ("Allow", "GET"))
    if environ["SERVER_PROTOCOL"] != "HTTP/1.1" or not environ.get("HTTP_HOST"):
        raise Refused("400 Bad Request", "an upgrade needs HTTP/1.1 and a Host header")
    if "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        raise Refused("400 Bad Request", "Upgrade: websocket goes with Connection: Upgrade")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != "13":
        raise Refused("426 Upgrade Required", "only version 13 of WebSocket is spoken here", *UPGRADE_HEADERS)
    if not check_origin(environ, origins):
        raise Refused("403 Forbidden", "this Origin may not connect; the setting `origins` lists those that may")
    return _accept(environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip())


def check_origin(environ: Mapping[str, Any], origins: frozenset[str]) -> bool:
    """Whether the request comes from one of these, or from no page at all."""
    return "HTTP_ORIGIN" not in environ or environ["HTTP_ORIGIN"] in origins


def allowed_origins(bound: Address, extra: Iterable[str], secure: bool = False) -> frozenset[str]:
    """The values that an Origin header may have: the bound address, this machine by its own names for it, and `extra`. Where TLS is spoken
    here (`secure`), no page of this server has come without it."""
    origins = {origin.rstrip("/") for origin in extra}
    if not bound.path:
        host = f"[{bound.host}]" if ":" in bound.host else bound.host
        for scheme, default in list(_DEFAULT_PORTS.items())[secure:]:
            port = "" if bound.port == default else f":{bound.port}"
            origins.update(f"{scheme}://{name}{port}" for name in (host, *_LOOPBACK))
    return frozenset(origins)


def _accept(key: str) -> str:
    raw = b""
    with contextlib.suppress(binascii.Error, UnicodeEncodeError):
        raw = base64.b64decode(key.encode("ascii"), validate=True)
    if len(raw) != 16:
        raise Refused("400 Bad Request", "Sec-WebSocket-Key is not 16 bytes in base64")
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _tokens(environ: Mapping[str, Any], name: str) -> set[str]:
    return {token.strip().lower() for token in environ.get(name, "").split(",")}


@dataclass(frozen=True, slots=True)
class Gate:
    """Who may come in, and to what: the allowed origins, and an opener for each path."""

    origins: frozenset[str]
    openers: Mapping[str, Opener]

    def check(self, environ: Mapping[str, Any]) -> str:
        """The `Sec-WebSocket-Accept` that answers this upgrade. Raises `Refused`."""
        if environ[PEER].unread:
            raise Refused("400 Bad Request", "an upgrade has no body")
        if environ["PATH_INFO"] not in self.openers:
            raise Refused("404 Not Found", "no WebSocket is served at this path; one is at /ws")
        return check_upgrade(environ, self.origins)

    def ask(self, connection: Any, environ: Mapping[str, Any], deadline: float) -> Runner:
        """Who serves this connection, decided before `deadline` (monotonic). Raises `Refused`."""
        limit = gevent.Timeout.start_new(max(0.001, deadline - time.monotonic()))
        try:
            return self.openers[environ["PATH_INFO"]](connection, environ)
        except HandoffError as error:
            raise Refused(problems.kind_of(error).status, error.message, *problems.headers_of(error)) from None
        except Exception as error:
            log.error("opening-failed", exc_info=untold(error), extra={"connection": connection.id})
            raise Refused("500 Internal Server Error", "something went wrong here") from None
        except gevent.Timeout as late:
            if late is not limit:
                raise
            raise Refused("503 Service Unavailable", "the decision whether to let you in took too long") from None
        finally:
            limit.close()
