"""One gateway process: what it is made of, what stands at which path, and how it ends.

    TERM        nothing is accepted any more, and connections without unfinished work are closed with 1001; tasks end, or the time is up;
                then the other connections are closed, and HTTP requests that wait for a task are answered
    INT, QUIT   the same at once, without the wait

The parts are found in the files beside this one, and tasks are `app/dispatch.py`'s.
"""

import functools
import logging
import resource
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import gevent
import gevent.socket
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from app import collector, listeners
from app.dispatch import Dispatcher
from app.durable import DurableJournal
from app.gateway import handler, hooks
from app.gateway.api import Api
from app.gateway.doors import Doors
from app.gateway.handshake import Gate, Opener, Runner, allowed_origins
from app.gateway.http import Site
from app.gateway.pages import Pages
from app.gateway.probes import Probes
from app.gateway.reaper import Reaper
from app.gateway.report import Report
from app.gateway.session import Session
from app.gateway.websocket import Common, Connection, Handler
from app.journal import Journal, MemoryJournal
from app.presence import Presence
from app.settings import Settings
from app.turn import Turn

log = logging.getLogger(__name__)

GOODBYE: Final = 1.0
"""How long, in seconds, the last close frames may take; the master waits a little longer than `graceful`."""

SWITCH_EVERY: Final = 0.001
"""Seconds for which the thread that writes the journal waits for the interpreter at most: with the usual 0.005, commits take longer."""

PATIENCE: Final = 5.0
"""How long, in seconds, beyond `graceful` a gateway that is leaving may still have the journal."""

_GOING_AWAY: Final = "the server is going away"
_RESERVED_FILES: Final = 64
FIRST_WORKER: Final = 2.0
"""How long, in seconds, nobody is let in while no worker has been met; then the pages are served all the same."""

_MOST_FILES: Final = 1 << 20


class Server(WSGIServer):  # type: ignore[misc]
    """Accepts connections: the site for requests, and what the gate says for upgrades. `request_timeout` is in seconds; `answering`
    counts the requests that are being answered."""

    handler_class = Handler

    def __init__(self, listener: Any, site: Site, gate: Gate, common: Common, request_timeout: float) -> None:
        super().__init__(listener, site, log=None, error_log=log, environ={"SERVER_NAME": "handoff"})
        self.gate = gate
        self.common = common
        self.request_timeout = request_timeout
        self.answering = 0
        self.requests: set[Any] = set()  # sockets that are not, or not yet, among the connections
        self._was_full = False

    def do_read(self) -> Any:
        """Accept one socket, where there is one; its requests follow in a greenlet."""
        accepted = super().do_read()
        if accepted:
            self.requests.add(accepted[0])
        return accepted

    def do_close(self, *accepted: Any) -> None:
        """The requests on a socket are over; it may live on as a connection."""
        self.requests.discard(accepted[0])
        super().do_close(*accepted)

    def full(self) -> bool:
        """Asked before each accept. Where it is, clients wait in the backlog, and descriptors are left for what the gateway itself does."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        full = limit != resource.RLIM_INFINITY and len(self.requests) + len(self.common.connections) >= limit - _RESERVED_FILES
        if full:
            gevent.spawn_later(0.1, self._accept_again)
            if not self._was_full:
                log.warning("connections-full: %d; others wait until the limit of open files allows more", len(self.common.connections))
        self._was_full = full
        return full

    def _accept_again(self) -> None:
        if self.started:
            self.start_accepting()


class Gateway:
    """All of one process, from its start to its end."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        hub = gevent.get_hub()
        turn = Turn(hub.loop)
        self._settings = settings
        self._leaving = Event()
        self._at_once = Event()
        self._dispatcher = Dispatcher(settings, _journal(settings), turn)
        self._reaper = Reaper(hub, turn, settings)
        openers = self._openers()
        address = listeners.address_of(listener)
        origins = allowed_origins(address, settings.origins)
        self._api = Api(self._dispatcher, settings)
        self._probes = Probes(self._dispatcher, settings.data_dir)
        site = Site(self._api, self._probes, Doors(origins), Pages(openers))
        # detached, or the descriptor would be closed together with the object that the master gave us
        ours = gevent.socket.socket(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._server = Server(ours, site, Gate(origins, openers), self._reaper.common, settings.handshake_timeout)
        self._report = Report(self._dispatcher, self._server.requests, self._reaper.connections)
        self._presence = Presence(hub.loop, settings, "gateway", settings.name or "gateway", address, self._report.look)

    def _openers(self) -> dict[str, Opener]:
        """What is served where; one's own handlers take `/`, and `/ws` stays."""
        openers: dict[str, Opener] = {"/ws": self._open_session, "/": self._open_session}
        if self._settings.handler:
            loaded = hooks.load(self._settings.handler, functools.partial(self._dispatcher.call, ""))
            openers["/"] = handler.opener(loaded, self._settings.max_unsent)
        return openers

    def _open_session(self, connection: Connection, environ: Mapping[str, Any]) -> Runner:
        return functools.partial(self._speak, connection)

    def _speak(self, connection: Connection) -> None:
        session = Session(self._dispatcher, connection, self._settings)
        connection.unfinished = session.watches
        session.run()

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal ends it."""
        gevent.signal_handler(signal.SIGTERM, self._leaving.set)
        for number in (signal.SIGINT, signal.SIGQUIT):
            gevent.signal_handler(number, self._leave_at_once)
        self._presence.start(self._report.listing)
        self._probes.board = self._presence.board
        self._dispatcher.start()
        self._dispatcher.wait_ready(FIRST_WORKER)  # who connects meanwhile waits in the listener, and then finds the functions known
        self._server.start()
        gevent.spawn(self._reaper.run)
        gevent.spawn(self._tell, ready)
        self._leaving.wait()
        self._leave()

    def _tell(self, ready: Callable[[], None]) -> None:
        while not self._dispatcher.wait_ready(1.0):
            continue
        ready()

    def _leave_at_once(self) -> None:
        self._at_once.set()
        self._leaving.set()

    def _leave(self) -> None:
        self._server.close()
        self._reaper.close_all(1001, _GOING_AWAY, idle_only=True)
        draining = gevent.spawn(self._dispatcher.drain, self._settings.graceful)
        gevent.wait([draining, self._at_once], count=1)
        self._reaper.close_all(1001, _GOING_AWAY)
        self._api.leave()
        with gevent.Timeout(GOODBYE, False):
            while (self._reaper.connections or self._server.answering) and not self._at_once.is_set():
                gevent.sleep(0.01)
        gevent.sleep(0)  # whoever is left gets what a last turn can write
        self._dispatcher.stop()
        self._presence.stop()


def _journal(settings: Settings) -> Journal:
    if settings.durability == "off":
        return MemoryJournal(uuid.uuid4().hex)
    sys.setswitchinterval(SWITCH_EVERY)
    return DurableJournal(settings.data_dir, settings.durability, settings.retention, settings.graceful + PATIENCE)


def serve(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """The gateway's role: serve on `listener` (listening, non-blocking) until TERM, INT or QUIT has ended it.

    `ready` is called once, when connections are accepted and at least one worker is known. Raises `SettingsError` where the handlers
    cannot be loaded.
    """
    _allow_many_files()
    gateway = Gateway(settings, listener)
    collector.settle()
    gateway.run(ready)


def _allow_many_files() -> None:
    """A descriptor is all that a connection needs of the system, and the usual limit of 1,024 is for other kinds of program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
