"""The tokens file: which bearer tokens are good, whose they are, and what they are good for. Read again whenever it changes.

    [[token]]
    subject = "shop"                             # owns the tasks; several tokens may have one subject
    sha256 = "9f86d081884c7d65…"                 # of the token, which stands nowhere; `run.py token` makes both
    functions = ["send_mail", "report_*"]        # what it may call; everything, where this is left out
    expires = 2027-01-01T00:00:00Z               # never, where this is left out
    operator = true                              # sees the figures of the whole gateway; false, where this is left out

Tokens have 256 bits of chance, so a plain hash of one tells nothing. One that is shown is looked up by a keyed hash of its hash, with a key
of this process: how long that takes says nothing about those in the file.
"""

import datetime
import hashlib
import hmac
import logging
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.errors import SettingsError
from app.gateway.identity import EVERYTHING, Grant, Identity
from app.private import read_private

log = logging.getLogger(__name__)

_FLAG: Final = "--tokens"
_KEYS: Final = frozenset({"subject", "sha256", "functions", "expires", "operator"})
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")

Stamp = tuple[int, ...]
"""By which a file is told from an earlier one at the same path."""


class Tokens:
    """What stands in one file. Each token has one `Grant`, which stays the same while the file gives it to the same subject."""

    def __init__(self, path: Path) -> None:
        """Raises `SettingsError` where the file cannot be used, or others can read it."""
        self._path = path
        self._key = secrets.token_bytes(32)
        self._stamp = _stamp(path)
        self._grants: dict[bytes, tuple[bytes, Grant]] = {}
        self._take(_read(path))

    def find(self, token: str) -> Grant | None:
        """The grant of this token; None where it is not known, or is over."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        kept, grant = self._grants.get(self._place(digest), (b"", None))
        return grant if grant is not None and hmac.compare_digest(kept, digest) and grant.is_good else None

    def look(self) -> None:
        """Read the file again, where it is another than before. What cannot be used changes nothing, and is told in the log: a slip of the
        pen must not lock everyone out."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            identities = _read(self._path)
        except SettingsError as error:
            log.error("tokens-unusable: %s; those that were read before stay", error.message)
            return
        before = len(self._grants)
        self._take(identities)
        log.info("tokens-read: there are %d now, there were %d", len(self._grants), before)

    def _take(self, identities: Mapping[bytes, Identity]) -> None:
        grants: dict[bytes, tuple[bytes, Grant]] = {}
        for digest, identity in identities.items():
            place = self._place(digest)
            _, grant = self._grants.pop(place, (b"", None))
            if grant is not None and grant.subject != identity.subject:
                grant.revoked = True
                grant = None
            grant = grant or Grant(identity.subject)
            grant.follow(identity)
            grants[place] = (digest, grant)
        for _, grant in self._grants.values():
            grant.revoked = True
        self._grants = grants

    def _place(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._key, digest_size=32).digest()


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _read(path: Path) -> dict[bytes, Identity]:
    """The identities by the hashes of their tokens."""
    try:
        file = tomllib.loads(read_private(path, _FLAG).decode())
    except ValueError as error:  # TOML or UTF-8 that is none
        raise SettingsError(f"{_FLAG}: {path}: {error}") from None
    entries = file.get("token", [])
    if file.keys() - {"token"} or not isinstance(entries, list):
        raise SettingsError(f"{_FLAG}: {path} wants nothing but [[token]] tables")
    found: dict[bytes, Identity] = {}
    for number, entry in enumerate(entries, 1):
        try:
            digest, identity = _entry(entry)
        except ValueError as error:
            raise SettingsError(f"{_FLAG}: {path}: token {number}: {error}") from None
        if digest in found:
            raise SettingsError(f"{_FLAG}: {path}: token {number} is there twice")
        found[digest] = identity
    return found


def _entry(entry: Any) -> tuple[bytes, Identity]:
    if not isinstance(entry, dict) or entry.keys() - _KEYS:
        raise ValueError(f"there are {', '.join(sorted(_KEYS))}, and nothing else")
    digest = entry.get("sha256")
    if not isinstance(digest, str) or not _HASH.match(digest):
        raise ValueError("sha256 wants 64 hexadecimal digits in lower case; `run.py token` makes them")
    functions = entry.get("functions", list(EVERYTHING))
    if not isinstance(functions, list):
        raise ValueError('functions want a list of names or patterns, as ["send_mail", "report_*"]')
    return bytes.fromhex(digest), Identity(entry.get("subject", ""), functions, _end(entry.get("expires")), entry.get("operator", False))


def _end(value: Any) -> float | None:
    """A TOML date with its time; one that does not say where is in UTC."""
    if value is None:
        return None
    if not isinstance(value, datetime.datetime):
        raise ValueError("expires wants a date with its time, as 2027-01-01T00:00:00Z, without quotes")
    return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
