"""Where a process is asked for what its slot of the scoreboard cannot hold: the list of its connections. A unix socket in the run
directory, named by the slot, for this user alone. Whoever connects gets one JSON object a line, and then the end of the stream."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent import socket

from app import wire
from app.rundir import RunDirectory
from app.sockets import look

log = logging.getLogger(__name__)

Listing = Callable[[], Iterator[tuple[int, dict[str, Any]]]]
"""Gives the connections, each as a descriptor (-1: closed meanwhile) and what the process knows of it; other things happen while it is
walked through, but none between a connection and the look at its descriptor."""

PATIENCE = 5.0
"""Seconds that a reader may take for a piece of the list."""

_AT_ONCE = 50


class Control:
    """Of the process in this slot of the scoreboard."""

    def __init__(self, rundir: RunDirectory, number: int, listing: Listing) -> None:
        self._rundir = rundir
        self._number = number
        self._listing = listing
        self._listener: Any = None
        self._greenlet: Any = None

    def start(self) -> None:
        """Answer from now on."""
        try:
            bound = self._rundir.listen_for_control(self._number)
        except OSError as error:
            log.error("control-unavailable: nobody can ask for the connections of this process: %s", error)
            return
        self._listener = socket.socket(bound.family, bound.type, bound.proto, fileno=bound.detach())
        self._greenlet = gevent.spawn(self._serve)

    def stop(self) -> None:
        """Answer no more."""
        if self._listener is not None:
            gevent.kill(self._greenlet)
            self._listener.close()
            self._rundir.forget_control(self._number)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                log.error("accept-failed: %s", error)
                gevent.sleep(1.0)
                continue
            self._answer(sock)  # one after the other: this is for an operator

    def _answer(self, sock: Any) -> None:
        sock.settimeout(PATIENCE)
        try:
            with sock:
                for piece in self._pieces():
                    sock.sendall(piece)
                    gevent.sleep(0)
        except OSError as error:
            log.debug("control-lost: %s", error)

    def _pieces(self) -> Iterator[bytes]:
        """The list, some at a time."""
        lines: list[bytes] = []
        for descriptor, known in self._listing():
            try:
                lines.append(wire.encode_line({**known, **look(descriptor)}))
            except OSError:  # closed
                continue
            if len(lines) == _AT_ONCE:
                yield b"".join(lines)
                lines = []
        yield b"".join(lines)
