"""One's own authentication as tests want it: the token says what it does. Plain blocking code, as it would be in a product."""

import sys
import time
from pathlib import Path
from typing import Any

import gevent

from app.gateway import Identity

OUTSIDE = Path("sent-away")
"""Subjects that are not known any more stand in this file, where the server runs."""


def authenticate(environ: dict[str, Any], token: str) -> Identity | None:
    """`user NAME` is NAME; a cookie `session=NAME` too, where there is no token."""
    cookie = environ.get("HTTP_COOKIE", "")
    if not token and cookie.startswith("session="):
        return _known(cookie.removeprefix("session="))
    what, _, name = token.partition("-")
    if what == "user":
        return _known(name)
    if what == "echo":
        return Identity(name, functions=["echo"])
    if what == "slow":
        time.sleep(float(name))
        return Identity("slow")
    if what == "brief":
        return Identity("brief", expires=float(name))
    if what == "breaks":
        raise LookupError(f"the database is away, and {token} was to be looked up")
    if what == "exits":
        sys.exit(f"{token} has no session")
    if what == "killed":
        raise gevent.GreenletExit(token)
    if what == "wrong":
        return "wrong"  # type: ignore[return-value]
    return None


def _known(name: str) -> Identity | None:
    outside = OUTSIDE.read_text().split() if OUTSIDE.exists() else []
    return None if name in outside else Identity(name)
