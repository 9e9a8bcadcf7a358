"""From where an HTTP request may come. A WebSocket is let in by `app/gateway/handshake.py`, with the same origins."""

import ipaddress
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from app.errors import Forbidden
from app.gateway.handshake import check_origin

_LOCAL: Final = "localhost"
_EXPOSED: Final = ("Access-Control-Expose-Headers", "Location, Preference-Applied, Retry-After, WWW-Authenticate")
_TAKEN: Final = ("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer")


class Doors:
    """From where a request may come. Cross-site requests of browsers end here, and those of a name that somebody else controls."""

    def __init__(self, origins: frozenset[str]) -> None:
        """`origins` are those that a browser may come from; their hosts are the names that this server has."""
        self._origins = origins
        self._hosts = {_LOCAL, *(_host_of(origin.partition("://")[2]) for origin in origins)}

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raises `Forbidden`.

        A page of another site sends its Origin. One whose name was made to point here sends none with a GET, but its name as the Host;
        an address is nobody's name.
        """
        if not check_origin(environ, self._origins):
            raise Forbidden("this Origin may not ask here; the setting `origins` lists those that may")
        host = _host_of(environ.get("HTTP_HOST", ""))
        if host and host not in self._hosts and not _is_address(host):
            raise Forbidden("nothing is served under this Host; name it in the setting `origins`, as https://example.org")

    def welcome(self, environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Headers that let a page from an allowed origin read the answer (Fetch, CORS); the others may not, whatever it says."""
        origin = environ.get("HTTP_ORIGIN")
        allowed = (("Access-Control-Allow-Origin", origin), _EXPOSED) if origin is not None and origin in self._origins else ()
        return (("Vary", "Origin"), *allowed)


def preflight(environ: Mapping[str, Any], methods: str) -> tuple[tuple[str, str], ...]:
    """Headers that answer the question of a browser what a page of an allowed origin may send, where this is that question."""
    asked = "HTTP_ORIGIN" in environ and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    return (("Access-Control-Allow-Methods", methods), _TAKEN) if asked else ()


def _host_of(field: str) -> str:
    """The host in a Host header, without its port; what cannot be read is nobody's."""
    try:
        return urlsplit(f"//{field}").hostname or ""
    except ValueError:
        return "?"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
