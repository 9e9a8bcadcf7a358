"""One gateway process: what it is made of, and what stands at which path.

The parts are found in the files beside this one, its end in `app/gateway/departure.py`, and tasks are `app/dispatch.py`'s.
"""

import functools
import logging
import math
import os
import resource
import socket
import ssl
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import gevent
import gevent.socket
from gevent.pywsgi import WSGIServer

from app import collector, listeners
from app.child import Child
from app.dispatch import Dispatcher
from app.durable import DurableJournal
from app.errors import HandoffError, SettingsError
from app.gateway import handler, hooks
from app.gateway.admission import Admission
from app.gateway.api import Api
from app.gateway.authority import Authority
from app.gateway.departure import Departure
from app.gateway.doors import Doors
from app.gateway.handshake import Gate, Opener, Runner, allowed_origins
from app.gateway.http import Site
from app.gateway.pages import Pages
from app.gateway.probes import Probes
from app.gateway.rates import Limits, place_of
from app.gateway.reaper import Reaper
from app.gateway.report import Report
from app.gateway.session import Session
from app.gateway.shared import Common
from app.gateway.warden import Warden
from app.gateway.websocket import Connection, Handler
from app.holdings import lock
from app.journal import Journal, MemoryJournal
from app.presence import Presence
from app.sealed import SealedSocket
from app.settings import Settings
from app.tls import Files, server_context
from app.turn import Turn

log = logging.getLogger(__name__)

SWITCH_EVERY: Final = 0.001
"""Seconds for which the thread that writes the journal waits for the interpreter at most: with the usual 0.005, commits take longer."""

PATIENCE: Final = 5.0
"""How long, in seconds, beyond `graceful` a gateway that is leaving may still have the journal."""

_RESERVED_FILES: Final = 64
FIRST_WORKER: Final = 2.0
"""How long, in seconds, nobody is let in while no worker has been met; then the pages are served all the same."""

_MOST_FILES: Final = 1 << 20


class Server(WSGIServer):  # type: ignore[misc]
    """Accepts connections: the site for requests, and what the gate says for upgrades. `request_timeout` is in seconds; `answering`
    counts the requests that are being answered, `unheard` the sockets on which the first is still to come."""

    handler_class = Handler

    def __init__(
        self, listener: Any, site: Site, gate: Gate, common: Common, request_timeout: float, context: ssl.SSLContext | None
    ) -> None:
        """With a `context`, TLS is spoken."""
        scheme = "http" if context is None else "https"
        super().__init__(listener, site, log=None, error_log=log, environ={"SERVER_NAME": "handoff", "wsgi.url_scheme": scheme})
        self.secure = context is not None
        self._context = context
        self.gate = gate
        self.common = common
        self.request_timeout = request_timeout
        self.answering = 0
        self.requests: set[Any] = set()  # sockets that are not, or not yet, among the connections
        self.unheard = 0
        self._was_full = False

    def do_read(self) -> Any:
        """Accept one socket, where there is one; its requests follow in a greenlet."""
        accepted = super().do_read()
        if accepted:
            self.requests.add(accepted[0])
        return accepted

    def handle(self, sock: Any, address: Any) -> None:
        """As pywsgi does, in the greenlet of this socket: a handshake that is slow holds up nobody else."""
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            sock = SealedSocket(sock, self._context, server_side=True)
            try:
                sock.handshake(self.request_timeout)
            except HandoffError as error:
                log.debug("tls-refused: %s: %s", address, error.message)
                return
        super().handle(sock, address)

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

    def __init__(self, settings: Settings, child: Child) -> None:
        listener = child.listener
        hub = gevent.get_hub()
        turn = Turn(hub.loop)
        self._settings = settings
        self._hooks = hooks.load(settings.handler) if settings.handler else None
        child.booted()
        patience = math.inf if child.successor else settings.graceful + PATIENCE
        let_go = _seat(settings, child, patience)
        self._dispatcher = Dispatcher(settings, _journal(settings, patience), turn)
        self._reaper = Reaper(hub, turn, settings)
        self._limits = Limits(settings)
        self._authority = Authority(settings, self._limits)
        openers = self._openers()
        context = tls_context(settings)
        address = listeners.address_of(listener)
        origins = allowed_origins(address, settings.origins, context is not None)
        self._api = Api(self._dispatcher, settings)
        self._warden = Warden(self._authority, self._reaper.connections, self._api)
        probes = Probes(self._dispatcher, settings.data_dir, lambda: self._presence.board)
        site = Site(self._api, probes, Doors(origins), Pages(openers), self._authority, self._limits)
        # detached, or the descriptor would be closed together with the object that the master gave us
        ours = gevent.socket.socket(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._server = Server(ours, site, Gate(origins, openers), self._reaper.common, settings.handshake_timeout, context)
        self._report = Report(self._dispatcher, self._server.requests, self._reaper.connections)
        self._presence = Presence(hub.loop, settings, "gateway", settings.name or "gateway", address, self._report.look)
        self._departure = Departure(self._server, self._reaper, self._dispatcher, self._api, settings.graceful, let_go)

    def _openers(self) -> dict[str, Opener]:
        """What is served where; one's own handlers take `/`, and `/ws` stays."""
        openers: dict[str, Opener] = {"/ws": self._open_session, "/": self._open_session}
        if self._hooks is not None:
            self._hooks.caller = functools.partial(self._dispatcher.call, "")
            openers["/"] = handler.opener(self._hooks, self._settings.max_unsent, self._authority, self._limits)
        return openers

    def _open_session(self, connection: Connection, environ: Mapping[str, Any]) -> Runner:
        admission = None
        if self._limits.any:
            self._limits.check("", place_of(environ.get("REMOTE_ADDR", "")))
        connection.grant = self._authority.of_upgrade(environ)
        if self._authority.asks or self._limits.any:
            admission = Admission(self._authority, self._limits, connection, environ, self._settings.handshake_timeout)
        return functools.partial(self._speak, connection, admission)

    def _speak(self, connection: Connection, admission: Admission | None) -> None:
        session = Session(self._dispatcher, connection, self._settings, admission)
        connection.unfinished = session.watches
        session.run()

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal ends it."""
        self._presence.start(self._report.listing)
        self._departure.listen()
        self._dispatcher.start()
        self._dispatcher.wait_ready(FIRST_WORKER)  # who connects meanwhile waits in the listener, and then finds the functions known
        self._server.start()
        gevent.spawn(self._reaper.run)
        if self._authority.asks:
            gevent.spawn(self._warden.run)
        gevent.spawn(self._tell, ready)
        self._departure.run()
        self._presence.stop()

    def _tell(self, ready: Callable[[], None]) -> None:
        while not self._dispatcher.wait_ready(1.0):
            continue
        ready()


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """That of the gateway's port; None where it speaks no TLS. Raises `SettingsError` where the files cannot be used."""
    if settings.ws_cert is None:
        if settings.ws_key is not None:
            raise SettingsError("--ws-key is given without --ws-cert; TLS wants both")
        return None
    return server_context(Files("--ws", settings.ws_cert, settings.ws_key), ["http/1.1"])


def _journal(settings: Settings, patience: float) -> Journal:
    if settings.durability == "off":
        return MemoryJournal(uuid.uuid4().hex)
    sys.setswitchinterval(SWITCH_EVERY)
    return DurableJournal(settings.data_dir, settings.durability, settings.retention, patience)


def _seat(settings: Settings, child: Child, patience: float) -> Callable[[], None] | None:
    """Wait until no other gateway of this master accepts; what lets the next one do so. A journal on the disk has a lock of its own."""
    if settings.durability != "off":
        return None
    return functools.partial(os.close, lock(settings.run_dir / "gateway.lock", patience)) if child.lifeline >= 0 else _nobody


def _nobody() -> None:
    """No other gateway waits for this one."""


def serve(settings: Settings, child: Child) -> None:
    """The gateway's role: serve on the child's listener until TERM, INT or QUIT has ended it, or HUP, where another takes over.

    `ready` is called once, when connections are accepted and at least one worker is known. Raises `SettingsError` where the handlers
    cannot be loaded.
    """
    _allow_many_files()
    gateway = Gateway(settings, child)
    collector.settle()
    gateway.run(child.ready)


def _allow_many_files() -> None:
    """A descriptor is all that a connection needs of the system, and the usual limit of 1,024 is for other kinds of program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
