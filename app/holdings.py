"""What a journal holds beside its file: the lock of its one owner, and room on its disk for the time when that is full."""

import fcntl
import logging
import os
import time
from pathlib import Path

import gevent

from app.errors import SettingsError

log = logging.getLogger(__name__)

RESERVE = 1024 * 1024
"""Bytes kept aside on the journal's disk, so that what runs can be reported when it is full."""

BESIDE = 256 * 1024
"""Bytes that a disk which was full has beside that room before it is said to have room again."""

FOLD_AT, FOLD_AT_LATEST = 512 * 1024, 8 * 1024 * 1024
"""Bytes of log rows, and no less than a page for each, past which SQLite's own log is written into the file. It is larger by then: what has
been brought into the tables is in it too. Where there is little room on the disk it is done sooner, elsewhere it may come later."""

_FRAME = 4096 + 24
_OF_WHAT_IS_FREE = 32
_ASK_FOR_LOCK_EVERY = 0.05


class Reserve:
    """A file that keeps room on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.taken = False

    def holds(self, path: Path, size: int) -> bool:
        """Whether there is room on its disk for that file to grow to `size` bytes."""
        disk = os.statvfs(path)
        return size - path.stat().st_size <= disk.f_bavail * disk.f_frsize

    def take_again(self) -> bool:
        """Whether it has its room, and the disk some beside it: else what comes next would find the disk full once more."""
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize >= RESERVE + BESIDE and self.take()

    def take(self) -> bool:
        """Whether it has its room, now or already."""
        if not self.taken:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE)
                self.taken = True
            except OSError as error:  # full, or past a quota
                log.debug("no room to keep aside: %s", error.strerror)
                os.ftruncate(descriptor, 0)
            finally:
                os.close(descriptor)
        return self.taken

    def free(self) -> None:
        """Give the room to whoever needs it."""
        self.taken = False
        self._path.unlink(missing_ok=True)


def lock(path: Path, patience: float) -> int:
    """Be the one owner of the journal, until the descriptor is closed or the process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + patience
    waiting = False
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > until:
                os.close(descriptor)
                raise SettingsError("--data-dir: another gateway has its journal; stop that one, or choose another directory") from None
        else:
            return descriptor
        if not waiting:
            waiting = True
            log.info("journal-waits: another process has the journal still")
        gevent.sleep(_ASK_FOR_LOCK_EVERY)


def fold_at(path: Path) -> int:
    """After how many bytes of log rows a journal on this disk is to be folded."""
    disk = os.statvfs(path)
    return min(max(FOLD_AT, disk.f_bavail * disk.f_frsize // _OF_WHAT_IS_FREE), FOLD_AT_LATEST)


def on_disk(text: str) -> int:
    """What this row adds to SQLite's own log: a page with its header, or more. So counted, that log is soon begun anew, also where rows are
    short; an fsync of what the file had before is quicker by a third than one of a file that grows."""
    return max(len(text), _FRAME)
