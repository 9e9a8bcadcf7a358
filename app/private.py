"""Files that hold what nobody else may read: tokens, and what is as good as one. Read whole, and only where their mode keeps others out."""

import os
import stat
from pathlib import Path
from typing import Final

from app.errors import SettingsError

MOST: Final = 4 * 1024 * 1024
"""Bytes that such a file may have."""


def read_private(path: Path, flag: str) -> bytes:
    """What is in the file. Raises `SettingsError`, naming the flag, where it cannot be read, or others than its owner can get at it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # or a pipe would hold us
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SettingsError(f"{flag}: {path} is not a file")
            if status.st_uid not in (0, os.geteuid()):
                raise SettingsError(f"{flag}: {path} belongs to another user, who can read and change it; make it your own")
            if stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
                mode = stat.S_IMODE(status.st_mode)
                raise SettingsError(f"{flag}: others can get at {path} (mode {mode:04o}); chmod 600 {path}")
            data = file.read(MOST + 1)
    except OSError as error:
        raise SettingsError(f"{flag}: cannot read {path}: {error.strerror}") from None
    if len(data) > MOST:
        raise SettingsError(f"{flag}: {path} is larger than {MOST} bytes")
    return data
