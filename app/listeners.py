"""Sockets that listen: bound, or taken over from whoever started us, before anything is forked, so that an address which is taken is known
at once. Nothing is accepted here."""

import contextlib
import errno
import os
import socket
import stat

from app.address import Address
from app.errors import SettingsError

BACKLOG = 2048
"""Connections that may wait to be accepted (the kernel may allow fewer)."""


def listen(address: Address, flag: str) -> socket.socket:
    """A socket bound to this address, listening and non-blocking.

    Raises `SettingsError`, naming the flag, where the address cannot be had.
    """
    if address.fd >= 0:
        return _take_over(address, flag)
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        _bind(sock, address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SettingsError(f"{flag}: cannot listen on {address}: {error.strerror or error}") from None
    sock.setblocking(False)  # inherited by the children: where another process wins the accept, a blocking one would hold the hub
    return sock


def _take_over(address: Address, flag: str) -> socket.socket:
    """The listener that was handed over as this descriptor. What tasks start must not inherit it, or the port would stay taken."""
    try:
        given = socket.socket(fileno=address.fd)
    except OSError as error:
        raise SettingsError(f"{flag}: nothing that listens was handed over as {address}: {error.strerror}") from None
    if given.type != socket.SOCK_STREAM or not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        given.detach()
        raise SettingsError(f"{flag}: what was handed over as {address} does not listen")
    if given.family not in (socket.AF_INET, socket.AF_INET6) and not (given.family == socket.AF_UNIX and _has_path(given)):
        given.detach()
        raise SettingsError(f"{flag}: what was handed over as {address} is neither of TCP nor a unix socket with a path")
    sock = given.dup()
    _let_go(given.detach())
    sock.setblocking(False)
    return sock


def _has_path(sock: socket.socket) -> bool:
    """A name without a path is bytes; it has no mode, so everybody on this machine could connect."""
    name = sock.getsockname()
    return isinstance(name, str) and bool(name)


def _let_go(fd: int) -> None:
    """Close it; of the three standard ones something is left, or the next file would be taken for it."""
    if fd > 2:
        os.close(fd)
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, fd)
    os.close(nothing)


def _bind(sock: socket.socket, address: Address) -> None:
    if address.path:
        _remove_stale(address.path)
        before = os.umask(0o177)
        try:
            sock.bind(address.sockaddr)
        finally:
            os.umask(before)
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address.sockaddr)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; anything else stays, and the bind fails."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) != errno.ECONNREFUSED:
                return
        os.unlink(path)


def address_of(sock: socket.socket) -> Address:
    """Where a listener really is: port 0 resolved."""
    name = sock.getsockname()
    return Address("", 0, name) if isinstance(name, str) else Address(name[0], name[1])


def forget(address: Address) -> None:
    """Remove the name of a unix socket whose listener is gone for good; it stays where only root could do so, who we are no more."""
    if address.path:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.unlink(address.path)
