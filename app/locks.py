"""Record locks of fcntl(2), one byte of a file each: held by a process, not by its forks, and free once it has ended, however that was.

A process that closes any descriptor of a file loses all its locks on it: so a file of locks holds nothing else, and is opened once.
"""

import fcntl
import os
import struct

_FLOCK = "hh4xqqi4x"  # struct flock: type, whence, start, length, pid


def take(descriptor: int, byte: int) -> bool:
    """Have the lock of this byte; False where another process has it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):  # POSIX allows both
        return False
    return True


def wait(descriptor: int, byte: int) -> None:
    """As `take`, blocking the whole process until it is free."""
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, byte)


def give(descriptor: int, byte: int) -> None:
    """Let go of it."""
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)


def holder(descriptor: int, byte: int) -> int:
    """The other process that has the lock of this byte; 0 where none has. A descriptor to read is enough."""
    asked = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    kind, _, _, _, pid = struct.unpack(_FLOCK, asked)
    return int(pid or -1) if kind != fcntl.F_UNLCK else 0  # no number: it is of another namespace of pids
