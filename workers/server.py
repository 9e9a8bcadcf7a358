"""A worker process: the Text server. It accepts, reads, runs and answers; everything else has a room of its own, and is joined here.

Two doors: the shared listener, where callers and remote gateways meet whichever process is idle, and this process's own socket in the run
directory, where the local gateway finds just this one.
"""

import logging
import os
import signal
import socket as stdlib_socket
import time
import uuid
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event as Signal

from app import collector, supervised
from app.child import Child
from app.ends import overrun_path, stack_path
from app.heartbeat import Look
from app.listeners import address_of
from app.presence import Presence
from app.rundir import RunDirectory
from app.settings import Settings
from app.turn import Turn
from workers import report
from workers.claims import KEPT_FOR, Claimant, Claimants
from workers.connection import Connection
from workers.executor import Executor
from workers.idlers import Idlers
from workers.limits import Limits
from workers.overrun import Overrun
from workers.process import ProcessPool
from workers.registry import REGISTRY
from workers.retirement import Retirement
from workers.slots import Slots
from workers.threshold import Threshold
from workers.watchdog import Watchdog

log = logging.getLogger(__name__)

STAND_BACK = 0.05
"""Seconds that a process whose slots are all taken waits for one before it accepts, so that an idle one gets there first."""

_EXPIRE_EVERY = 5.0
_LOOK_EVERY = 0.02
_ACKS_WITHIN = 2.0
_FIRST_WORD = 0.25
"""Seconds that whoever has just connected has to ask for something, of a process that leaves."""

_GOODBYES_WITHIN = 15.0
"""Seconds that a gateway has to hear that a process leaves of its own accord, and to say that it sends nothing more."""


class Worker:
    """One worker process: what its connections share, and its life from the first accept to the last report."""

    def __init__(self, settings: Settings, child: Child, siblings: int) -> None:
        name = child.name
        self.loop = gevent.get_hub().loop
        self.turn = Turn(self.loop)
        self.registry = REGISTRY
        self.max_line = settings.max_line
        self.draining = False
        self.name = name
        self.instance = uuid.uuid4().hex
        self._child = child
        self._siblings = siblings
        self._graceful = settings.graceful
        self._until = float("inf")
        self._rundir = RunDirectory(settings.run_dir)
        self._processes = ProcessPool(str(settings.data_dir), settings.tasks, settings.task)
        self._retirement = Retirement(self.loop, settings.max_tasks, settings.max_memory, self._leave)
        self._overrun = Overrun(overrun_path(settings.run_dir, name, os.getpid()))
        self._limits = Limits(self.loop, self._overrun, self._retirement.taint)
        slots = Slots(settings.concurrency, settings.process_slots)
        self.executor = Executor(self.loop, slots, self._processes, self._limits, self._retirement, name, settings)
        self._watchdog = Watchdog(self.loop, settings.hang_limit, stack_path(settings.run_dir, name, os.getpid()), self._overrun)
        self._claimants = Claimants()
        self._threshold = Threshold(settings)
        self._idlers = Idlers(settings.text_idle)
        self._connections: dict[Connection, Any] = {}
        self._presence = Presence(self.loop, settings, "worker", name, address_of(child.listener), self._look)
        self._stop = Signal()
        self._fast = False
        self._told = False

    def serve(self, listener: stdlib_socket.socket) -> None:
        """Accept until told to stop, or until it is time to leave; then let what runs end."""
        shared, own = _Door(listener), _Door(self._rundir.listen(self.instance))
        at_shared, at_own = gevent.spawn(self._accept, shared, self._let_in, STAND_BACK), gevent.spawn(self._accept, own, self._converse, 0)
        expiry = gevent.spawn(self._expire)
        gevent.signal_handler(signal.SIGTERM, self._stop_soon)
        for number in (signal.SIGINT, signal.SIGQUIT):
            gevent.signal_handler(number, self._stop_at_once)
        gevent.signal_handler(signal.SIGHUP, self._leave, True)
        self._watchdog.start()
        self._retirement.start()
        self._presence.start(lambda: report.listing(self._connections.values()))
        self._child.ready()
        self._stop.wait()
        gevent.kill(at_shared)
        shared.close()
        self._threshold.close()
        self._drain()  # meanwhile a gateway that lost its connection can come back for its tasks
        gevent.killall([at_own, expiry])
        own.close()
        self._rundir.forget(self.instance)
        self._processes.close()
        self._watchdog.stop()
        self._overrun.stop()
        self._presence.stop()

    def _look(self) -> Look:
        return report.look(self.executor, len(self._connections))

    def claimant(self, journal: str) -> Claimant:
        """The gateway that has this journal."""
        return self._claimants.of(journal)

    def describe(self) -> dict[str, Any]:
        """The catalogue, and what a gateway wants to know of this process."""
        slots = self.executor.slots
        return {
            "functions": self.registry.catalogue(),
            "instance": self.instance,
            "pid": os.getpid(),
            "name": self.name,
            "slots": slots.most,
            "process_slots": slots.most_processes,
            "siblings": self._siblings,
            "leaving": self.draining,
        }

    def _accept(self, door: "_Door", receive: Callable[[Any], None], stand_back: float) -> None:
        while True:
            door.wait()
            if stand_back:
                self.executor.slots.wait_room(stand_back)
            sock = door.accept()
            if sock is not None:
                gevent.spawn(receive, sock)

    def _let_in(self, sock: Any) -> None:
        inside = self._threshold.enter(sock)
        if inside is not None:
            self._converse(inside)

    def _converse(self, sock: Any) -> None:
        connection = Connection(sock, self)
        self._connections[connection] = sock
        try:
            connection.run()
        finally:
            del self._connections[connection]

    def _expire(self) -> None:
        while True:
            gevent.sleep(_EXPIRE_EVERY)
            self._claimants.expire()
            self._idlers.look(self._connections, time.monotonic())

    def _leave(self, patient: bool) -> None:
        """Take nothing more, from this moment on, and tell those who would send it. `patient`: what runs may take its time; else it has
        as long as `--graceful` says. A second call can only make it faster."""
        if not patient:
            self._until = min(self._until, time.monotonic() + self._graceful)
        if not self.draining:
            self.draining = True
            self._claimants.part()
            self._child.leaving()
        self._stop.set()

    def _stop_soon(self) -> None:
        self._told = True
        self._leave(False)

    def _stop_at_once(self) -> None:
        self._fast = True
        self._stop_soon()

    def _drain(self) -> None:
        """Idle connections close at once; the others once what they asked for has ended, and a gateway has taken note of it."""
        gevent.sleep(0)  # who was accepted in this moment is among the connections then
        if not self._told or (not self._fast and not all(connection.lines for connection in self._connections)):
            gevent.sleep(_FIRST_WORD)
        for connection in list(self._connections):
            if connection.idle:
                connection.close()
        self._wait_while(lambda: self._unfinished or not all(one.answered for one in self._connections))
        self._until = time.monotonic() + (_ACKS_WITHIN if self._told else _GOODBYES_WITHIN)
        self._wait_while(lambda: self._claimants.unacknowledged or self._claimants.parting)
        if not self._told:
            self._until = time.monotonic() + KEPT_FOR  # one that is being replaced comes back, and hears then
            self._wait_while(lambda: self._claimants.awaited(_GOODBYES_WITHIN) or self._claimants.unacknowledged)

    def _wait_while(self, condition: Callable[[], Any]) -> None:
        """Until it is false, or `_until`, which a signal may bring forward meanwhile."""
        while not self._fast and time.monotonic() < self._until:
            gevent.sleep(_LOOK_EVERY)  # first, so that what has come in already is read
            if not condition():
                return

    @property
    def _unfinished(self) -> int:
        """How many tasks run that may still end."""
        return self.executor.slots.used - len(self._limits.hopeless)


class _Door:
    """A listener that takes one connection at a time, because other processes wait at the same one."""

    def __init__(self, listener: stdlib_socket.socket) -> None:
        self._socket = socket.socket(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._socket.setblocking(False)
        self._readable = gevent.get_hub().loop.io(self._socket.fileno(), 1)
        self.tcp = self._socket.family != socket.AF_UNIX

    def close(self) -> None:
        """Accept nobody any more; those who share the listener go on."""
        self._readable.close()
        self._socket.close()

    def wait(self) -> None:
        """Block until somebody waits to be accepted."""
        gevent.get_hub().wait(self._readable)

    def accept(self) -> Any:
        """The connection; None where another process was faster."""
        try:
            connection, _ = self._socket.accept()
            if self.tcp:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (BlockingIOError, ConnectionError):
            return None
        except OSError as error:  # out of file descriptors, most likely
            log.error("accept-failed: %s", error)
            gevent.sleep(STAND_BACK)
            return None
        return connection


def serve(settings: Settings, child: Child, siblings: int) -> None:
    """The role: load the tasks (raises `SettingsError` where one does not load), then serve until SIGTERM, SIGINT or SIGQUIT, or until it
    is time to leave. `siblings`: how many processes share the listener, this one included."""
    REGISTRY.load(settings.tasks, settings.task)
    REGISTRY.freeze()
    worker = Worker(settings, child, siblings)
    collector.settle()
    if child.lifeline < 0:
        supervised.outlast_start(os.environ)
    worker.serve(child.listener)
