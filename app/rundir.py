"""The run directory: where local workers are met, each at a unix socket named by its instance. No lines are read or written here.

What is left there of a worker that is gone is in `app/ends.py`."""

import contextlib
import fcntl
import os
import re
import socket
import struct
from pathlib import Path

from app.address import Address
from app.errors import SettingsError

_SOCKET_NAME = re.compile(r"worker-([0-9a-f]{32})\.sock\Z")
_BACKLOG = 16
_LOCK = "master.lock"
_FLOCK = "hh4xqqi4x"  # struct flock: type, whence, start, length, pid


def lock(path: Path) -> int:
    """Be the one master of this run directory, until the descriptor is closed or the process ends; raises `SettingsError` where there is
    one.

    A lock of the process, not of the file: the children that it forks do not hold it.
    """
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise SettingsError(
            f"--data-dir: another one runs with {path.parent} already; stop it, or give this one a directory of its own"
        ) from None
    return descriptor


def master(path: Path) -> int:
    """The process that is the master of this run directory; 0 where there is none. Raises `PermissionError`."""
    try:
        descriptor = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        kind, _, _, _, pid = _holder(descriptor)
    finally:
        os.close(descriptor)
    return int(pid) if kind != fcntl.F_UNLCK else 0


def _holder(descriptor: int) -> tuple[int, ...]:
    asked = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return struct.unpack(_FLOCK, asked)


class RunDirectory:
    """A directory of mode 0700. Sockets are reached through `/proc/self/fd`, because `sun_path` ends at 108 bytes."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def address(self, instance: str) -> Address:
        """Where the worker of this instance listens."""
        return Address("", 0, f"/proc/self/fd/{self._fd}/worker-{instance}.sock")

    def listen(self, instance: str) -> socket.socket:
        """Bind and listen for a gateway's connections; non-blocking, only for this user."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(self.address(instance).sockaddr)
        os.chmod(self.path / f"worker-{instance}.sock", 0o600)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        return sock

    def instances(self) -> set[str]:
        """The instances that have a socket here; one that was killed leaves its socket behind."""
        return {found.group(1) for name in os.listdir(self._fd) if (found := _SOCKET_NAME.match(name))}

    def has_master(self) -> bool:
        """Whether a master runs here, who leaves word of how a worker ended."""
        try:
            descriptor = os.open(_LOCK, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            return False
        try:
            return _holder(descriptor)[0] != fcntl.F_UNLCK
        finally:
            os.close(descriptor)

    def forget(self, instance: str) -> None:
        """Remove the socket of a worker that is gone, or is leaving."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"worker-{instance}.sock", dir_fd=self._fd)
