"""The pages: a fixed list of files, read once at the start, served as a WSGI application. No path of a request ever reaches the disk."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from app.gateway.handshake import UPGRADE_HEADERS
from app.gateway.requests import Refused, refuse_body

FOLDER: Final = Path(__file__).parent / "page"

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}

SECURITY: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Page(NamedTuple):
    """One file as it is sent."""

    body: bytes
    headers: tuple[tuple[str, str], ...]
    tag: str


class Pages:
    """Files by path; `/` is `index.html`. `sockets` are paths where WebSocket is served and nothing else."""

    def __init__(self, sockets: Iterable[str], folder: Path = FOLDER) -> None:
        self._pages = {f"/{path.name}": _read(path) for path in sorted(folder.iterdir()) if path.suffix in _TYPES}
        if "/index.html" in self._pages:
            self._pages["/"] = self._pages["/index.html"]
        self._sockets = frozenset(sockets)

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> list[bytes]:
        """Answer one request; raises `Refused` where there is no such page, or it cannot be had in this way."""
        refuse_body(environ)
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        page = self._pages.get(path)
        if page is None:
            if path in self._sockets:
                raise Refused("426 Upgrade Required", "this is a WebSocket address; connect to it as ws://", *UPGRADE_HEADERS)
            raise Refused("404 Not Found", "there is no such page")
        if method not in ("GET", "HEAD"):
            raise Refused("405 Method Not Allowed", "pages can be read only", ("Allow", "GET, HEAD"))
        if _has(environ.get("HTTP_IF_NONE_MATCH", ""), page.tag):
            start_response("304 Not Modified", [("ETag", page.tag), ("Cache-Control", "no-cache"), *SECURITY])
            return []
        start_response("200 OK", [*page.headers, *SECURITY])
        return [page.body] if method == "GET" else []


def _read(path: Path) -> Page:
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = (("Content-Type", _TYPES[path.suffix]), ("Content-Length", str(len(body))), ("ETag", tag), ("Cache-Control", "no-cache"))
    return Page(body, headers, tag)


def _has(condition: str, tag: str) -> bool:
    """Whether an If-None-Match header names this tag."""
    return condition.strip() == "*" or tag in (given.strip().removeprefix("W/") for given in condition.split(","))
