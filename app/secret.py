"""The secret that gateways, clients and workers share: where it comes from, and what is done so that nobody sees it.

It comes from a file that only its owner can read (`--secret-file`), or from the variable `HANDOFF_SECRET`. There is no flag with the
secret itself, since anybody on a machine sees the command lines on it, and no key in `handoff.toml`, which is often shown around. It is
never sent: what is sent is in `app/proof.py`.
"""

import ctypes
import hmac
import os
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import NoReturn

from app.errors import SettingsError

VARIABLE = "HANDOFF_SECRET"
SHORTEST = 32
"""Bytes: who listens in may try out guesses for as long as he likes, and nobody guesses 32 that were drawn."""

_LARGEST_FILE = 4096
_HOW = "make one with: (umask 077; openssl rand -hex 32 > secret)"


class Secret:
    """A key that is shown nowhere: not by `repr`, not in a pickle, not by an attribute with a name that is printed by habit."""

    __slots__ = ("__key",)

    def __init__(self, key: bytes) -> None:
        """Raises `ValueError` where it is too short."""
        if len(key) < SHORTEST:
            raise ValueError(f"a secret wants {SHORTEST} characters or more; {_HOW}")
        self.__key = key

    def sign(self, message: bytes) -> bytes:
        """HMAC-SHA256 (RFC 2104) of a message."""
        return hmac.digest(self.__key, message, "sha256")

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be pickled")


def read_secret(path: Path, flag: str = "--secret-file") -> Secret:
    """The secret in a file, without the end of its line. Raises `SettingsError` where others can read the file, or it is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # or a pipe would hold the start
    except OSError as error:
        raise SettingsError(f"{flag}: cannot read {path}: {error.strerror}") from None
    try:
        _check_file(path, os.fstat(descriptor), flag)
        key = os.read(descriptor, _LARGEST_FILE)
    finally:
        os.close(descriptor)
    return _secret(key.rstrip(b"\r\n"), f"{flag}: {path}")


def take_secret(path: Path | None, environ: MutableMapping[str, str]) -> Secret | None:
    """The secret of this process, or None; the variable is gone afterwards, so that no task and no process of a task has it.

    Raises `SettingsError` where it cannot be used, or both are given.
    """
    text = take_variable(VARIABLE, environ)
    if path is None:
        return _secret(os.fsencode(text), VARIABLE) if text else None
    if text:
        raise SettingsError(f"--secret-file and {VARIABLE} are both given; leave one of them away")
    return read_secret(path)


def take_variable(name: str, environ: MutableMapping[str, str]) -> str:
    """The value of a variable, empty where there is none; it is gone afterwards, from what `/proc/PID/environ` shows as well."""
    if environ is os.environ:
        _wipe(name)
    return environ.pop(name, "")


def _secret(key: bytes, source: str) -> Secret:
    try:
        return Secret(key)
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None


def _check_file(path: Path, found: os.stat_result, flag: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SettingsError(f"{flag}: {path} is not a file")
    if found.st_uid not in (0, os.geteuid()):
        raise SettingsError(f"{flag}: {path} belongs to another user, who can read and change it; make it your own")
    if found.st_mode & 0o077:
        raise SettingsError(f"{flag}: others can get at {path} (mode {stat.S_IMODE(found.st_mode):04o}); chmod 600 {path}")
    if found.st_size > _LARGEST_FILE:
        raise SettingsError(f"{flag}: {path} has more than {_LARGEST_FILE} bytes, so it is hardly a secret; {_HOW}")


def _wipe(name: str) -> None:
    """Overwrite the value in the block of memory that `/proc/PID/environ` shows for as long as the process lives, whatever is unset."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    if address := getenv(name.encode()):
        ctypes.memset(address, 0, len(ctypes.string_at(address)))
