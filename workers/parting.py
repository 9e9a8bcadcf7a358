"""How a connection is closed so that the last answer arrives: what the other side still sends is read for a moment and thrown away.

A plain close would reset a sender who is in the middle of something, and what it has not read yet would be lost with the reset.
"""

import logging
import socket as stdlib_socket
from typing import Any, Final

import gevent

log = logging.getLogger(__name__)

DRAIN_FOR: Final = 2.0
"""Seconds for which what a sender still sends is read after the last answer."""

_RECV: Final = 64 * 1024


def part(sock: Any, most: float = float("inf")) -> None:
    """Say that nothing more comes, and read to the end, for at most `DRAIN_FOR` seconds and about `most` bytes. Who calls closes it."""
    try:
        sock.shutdown(stdlib_socket.SHUT_WR)
        sock.settimeout(DRAIN_FOR)
        with gevent.Timeout(DRAIN_FOR, False):
            while most > 0 and (data := sock.recv(_RECV)):
                most -= len(data)
    except OSError as error:
        log.debug("connection lost: %s", error)
