"""How one gateway process ends: what it still does for its clients and its tasks, and in which order it lets go of things.

TERM        nothing is accepted any more, and connections without unfinished work are closed with 1001; tasks end, or the time is up;
            then the other connections are closed, and HTTP requests that wait for a task are answered
INT, QUIT   the same at once, without the wait
HUP         another process is there to take over: connections are closed with 1012, what was accepted is committed, and the journal is
            let go of; running tasks go on in their workers, and the other one claims them. A journal in memory cannot be taken over:
            the other one begins at once, and this one stays until its tasks have ended
"""

import signal
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event

from app.dispatch import Dispatcher
from app.gateway.api import Api
from app.gateway.reaper import Reaper

GOODBYE: Final = 1.0
"""How long, in seconds, the last close frames may take; the master waits a little longer than `graceful`."""

FIRST_WORD: Final = 0.25
"""How long, in seconds, whoever has connected to a process that is being replaced has to say what he wants."""

_LOOK_EVERY: Final = 0.01
_GOING_AWAY: Final = 1001, "the server is going away"
_RESTARTING: Final = 1012, "the server is being replaced by a newer one; connect again"


class Departure:
    """Of one gateway. `let_go` makes room for the next one where the journal is in memory; None where it is on the disk."""

    def __init__(
        self, server: Any, reaper: Reaper, dispatcher: Dispatcher, api: Api, graceful: float, let_go: Callable[[], None] | None
    ) -> None:
        self._server = server
        self._reaper = reaper
        self._dispatcher = dispatcher
        self._api = api
        self._graceful = graceful
        self._let_go = let_go
        self._told = Event()
        self._leaving = Event()
        self._at_once = Event()

    def listen(self) -> None:
        """Hear signals from now on."""
        gevent.signal_handler(signal.SIGTERM, self._leave_soon)
        for number in (signal.SIGINT, signal.SIGQUIT):
            gevent.signal_handler(number, self._leave_at_once)
        gevent.signal_handler(signal.SIGHUP, self._told.set)

    def run(self) -> None:
        """Wait for a signal, then leave; blocks until that is done."""
        self._told.wait()
        self._server.close()
        if self._leaving.is_set():
            self._leave()
        elif self._let_go is None:
            self._hand_over()
        else:
            self._let_go()
            self._outlive()

    def _leave_soon(self) -> None:
        self._leaving.set()
        self._told.set()

    def _leave_at_once(self) -> None:
        self._at_once.set()
        self._leave_soon()

    def _leave(self) -> None:
        self._reaper.close_all(*_GOING_AWAY, idle_only=True)
        draining = gevent.spawn(self._dispatcher.drain, self._graceful)
        gevent.wait([draining, self._at_once], count=1)
        self._part(*_GOING_AWAY)
        self._dispatcher.stop()

    def _part(self, code: int, reason: str) -> None:
        """From whoever is left: connections, and requests that wait."""
        self._api.leave()
        self._say_goodbye(GOODBYE, lambda: self._reaper.connections or self._server.answering, code, reason)
        gevent.sleep(0)  # whoever is left gets what a last turn can write

    def _hand_over(self) -> None:
        """Nobody is served until the other has the journal: what is begun is ended first, and soon."""
        self._dispatcher.hold()
        self._api.leave()
        self._say_goodbye(FIRST_WORD, lambda: self._server.unheard, *_RESTARTING)
        self._say_goodbye(GOODBYE, lambda: self._server.answering, *_RESTARTING)
        self._dispatcher.hand_over(GOODBYE)
        self._say_goodbye(GOODBYE, lambda: self._reaper.connections, *_RESTARTING)

    def _outlive(self) -> None:
        """The other one serves already, and knows nothing of our tasks: let them end here, and be asked about here until then."""
        while self._dispatcher.unfinished and not self._leaving.is_set():
            self._reaper.close_all(*_RESTARTING, idle_only=True)
            self._leaving.wait(FIRST_WORD)
        if self._leaving.is_set():
            self._leave()
            return
        self._part(*_RESTARTING)
        self._dispatcher.stop()

    def _say_goodbye(self, limit: float, anybody: Callable[[], object], code: int, reason: str) -> None:
        """Close whatever connection there is, and those that open meanwhile, until nobody is left, or the time is up."""
        until = time.monotonic() + limit
        self._reaper.close_all(code, reason)
        while anybody() and time.monotonic() < until and not self._at_once.is_set():
            gevent.sleep(_LOOK_EVERY)
            self._reaper.close_all(code, reason)
