"""Processes of their own for tasks: clean interpreters (exec, never a bare fork), one task at a time, killable, kept warm. The parent's
side.

They speak the Text protocol over a socket pair; their side is `workers/isolated.py`. How many there may be is counted in
`workers/slots.py`.
"""

import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent
from gevent import socket, subprocess

from app import wire
from app.ends import LAST_SIGNAL
from app.errors import HandoffError, RemoteError, TimedOut, TooLarge
from app.messages import Event
from workers.attempt import Attempt
from workers.context import Interrupt, Retry, TaskCancelled, TimeLimitExceeded
from workers.vitals import Vitals

log = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds that a task in a process has to end after its interrupt, before the process is killed."""

WRITES_WITHIN = 0.3
"""Seconds that a process has to write down where it stands, before it is killed."""

READY_WITHIN = 60.0
"""Seconds that a process has to load the tasks."""

_NOT_IN_TIME = object()
_MAX_LINE = 64 * 1024 * 1024
_ROOT = str(Path(__file__).resolve().parent.parent)


class ProcessDied(HandoffError):
    """The process that ran the task ended before the task did; `killed_by` says how, `memory` is the most that it took, in MiB, and
    `stack` is where it stood, if that is known."""

    code = "crashed"


class RetryElsewhere(Retry):
    """The task asked in its process to be tried again; `error` is what it failed with there."""

    def __init__(self, after: float, error: RemoteError) -> None:
        super().__init__(error.message, after=after)
        self.error = error


class ProcessPool:
    """Keeps processes warm between tasks. `load` is what each of them loads: task modules and dotted names, as the worker itself."""

    def __init__(self, data_dir: str, modules: tuple[str, ...], dotted: tuple[str, ...]) -> None:
        self._load = {"path": sys.path, "data_dir": data_dir, "tasks": modules, "task": dotted}
        self._idle: list[Process] = []
        self._all: set[Process] = set()

    @contextmanager
    def process(self) -> Iterator["Process"]:
        """A process that is ready for a task; blocks this greenlet until there is one. It is kept for the next task if its task ended."""
        process = self._take()
        try:
            process.wait_ready()
            yield process
        finally:
            self._put_back(process)

    def close(self) -> None:
        """Kill them all: the worker leaves."""
        for process in list(self._all):
            process.kill()

    def _take(self) -> "Process":
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            self._end(process)
        process = Process(self._load)
        self._all.add(process)
        return process

    def _put_back(self, process: "Process") -> None:
        if process.usable:
            self._idle.append(process)
        else:
            self._end(process)

    def _end(self, process: "Process") -> None:
        process.close()
        self._all.discard(process)


class Process:
    """One interpreter. `usable` while it waits for a task: not before it is ready, and not after one that did not end."""

    def __init__(self, load: dict[str, Any]) -> None:
        self.usable = False
        self._ready = False
        self._buffer = wire.LineBuffer(_MAX_LINE)
        self._lines: deque[bytes] = deque()
        self._vitals = Vitals()
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                environ = {**os.environ, "PYTHONPATH": _ROOT}
                fds = [theirs.fileno(), self._vitals.fd]
                command = [sys.executable, "-m", "workers.isolated", str(os.getpid()), *map(str, fds)]
                self._popen = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, env=environ)
        except BaseException:  # interrupted meanwhile, say: whatever was started by then ends when it reads that nobody is there
            self._socket.close()
            self._vitals.close()
            raise
        self._popen.rawlink(self._ended)
        self._send(load)

    @property
    def alive(self) -> bool:
        """Whether it has not ended while it was idle."""
        return self._popen.poll() is None

    def wait_ready(self) -> None:
        """Block until it has loaded the tasks. Raises `ProcessDied` where it does not."""
        if not self._ready:
            with gevent.Timeout(READY_WITHIN, ProcessDied(f"a process for it was not ready within {READY_WITHIN:g} s")):
                self._message()
            self._ready = True
        self.usable = True

    def run(self, attempt: Attempt) -> Any:
        """Run it; blocks this greenlet. Returns or raises what the task did, `ProcessDied` where the process died."""
        self.usable = False
        self._send(
            {"id": attempt.id, "function": attempt.function, "args": attempt.raw, "attempt": attempt.attempt, "retry": attempt.may_retry}
        )
        self._vitals.watch(self._popen.pid)
        try:
            with _HardLimit(self, attempt.spec.options.hard_limit):
                try:
                    return self._follow(attempt)
                except Interrupt as interrupt:
                    if self.usable:
                        raise
                    return self._end_early(attempt, interrupt)
        finally:
            self._vitals.rest()

    def kill(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessLookupError):
            self._popen.kill()

    def ask_where(self) -> None:
        """Have it write down where it stands, and end of that; it is killed where it does not."""
        with suppress(ProcessLookupError):
            self._popen.send_signal(LAST_SIGNAL)
        gevent.get_hub().loop.timer(WRITES_WITHIN).start(self.kill)

    def stack(self) -> dict[str, str]:
        """Where it stood when it ended, as a detail of an error, where that is known."""
        return self._vitals.stack()

    def close(self) -> None:
        """End it, and hear nothing more of it."""
        self.kill()
        self._socket.close()
        self._vitals.close()

    def _ended(self, popen: Any) -> None:
        """Its end is the end of what it says, also where something that it forked still holds the other side of the socket."""
        with suppress(OSError):  # closed already
            self._socket.shutdown(socket.SHUT_RD)

    def _follow(self, attempt: Attempt) -> Any:
        while True:
            message = self._message()
            event = message["event"]
            if event == Event.PROGRESS.value:
                attempt.note_progress(message["fields"])
            elif event == Event.OUTPUT.value:
                if attempt.interrupt is None:
                    attempt.output(message["value"])
            else:
                self.usable = True
                return _outcome(event, message, attempt)

    def _end_early(self, attempt: Attempt, interrupt: Interrupt) -> Any:
        """Raise the interrupt over there, and kill the process where that does not end the task in time."""
        until = time.monotonic() + GRACE
        while True:
            with suppress(ProcessLookupError):
                self._popen.send_signal(signal.SIGUSR1 if isinstance(interrupt, TaskCancelled) else signal.SIGUSR2)
            try:
                outcome = gevent.with_timeout(max(0.0, until - time.monotonic()), self._follow, attempt, timeout_value=_NOT_IN_TIME)
            except Interrupt:
                if not self.usable:  # not its end, but the same interrupt once more
                    continue
                raise
            except ProcessDied:
                raise interrupt from None
            if outcome is _NOT_IN_TIME:
                raise interrupt
            return outcome

    def _message(self) -> Any:
        """The next that it says. Raises `ProcessDied` where it ends instead."""
        while not self._lines:
            data = self._receive()
            if not data:
                raise self._died()
            self._lines.extend(self._buffer.feed(data))
            if self._buffer.overflowed:
                raise TooLarge("what it returned", _MAX_LINE)
        return wire.decode(self._lines.popleft())

    def _receive(self) -> bytes:
        try:
            return bytes(self._socket.recv(65536))
        except OSError:  # it died before it had read all, or while this greenlet waited
            return b""

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: reading says so
            self._socket.sendall(wire.encode_line(message))

    def _died(self) -> ProcessDied:
        """It says nothing any more: wait for its end, or bring it about."""
        self._socket.close()
        try:
            status = self._popen.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._popen.wait()
        why = ", probably out of memory" if self._vitals.ran_out(status) else ""
        details = self._vitals.details(status)
        return ProcessDied(f"the process that ran it ended with {details['killed_by']}{why}", **details)


class _HardLimit:
    """Kills the process once a task has been in it for `limit` seconds; what the kill leads to is then reported as a time-out."""

    def __init__(self, process: Process, limit: float | None) -> None:
        self._process = process
        self._limit = limit
        self._timer: Any = None
        self._over = False

    def __enter__(self) -> None:
        if self._limit is not None:
            self._timer = gevent.get_hub().loop.timer(self._limit)
            self._timer.start(self._kill)

    def _kill(self) -> None:
        self._over = True  # not by the clock: a timer of the loop may be a little early by it
        self._process.ask_where()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._timer is not None:
            self._timer.close()
        if isinstance(error, ProcessDied) and self._over:
            raise TimedOut(f"over its hard limit of {self._limit:g} s; its process was killed", **self._process.stack()) from error


def _outcome(event: str, message: dict[str, Any], attempt: Attempt) -> Any:
    if event == Event.SUCCEEDED.value:
        return message["result"]
    error = dict(message["error"])
    remote = RemoteError(error.pop("code"), error.pop("message"), **error)
    if event == Event.CANCELLED.value:
        raise attempt.interrupt or TaskCancelled(remote.message)
    if event == Event.TIMED_OUT.value:
        raise attempt.interrupt or TimeLimitExceeded(remote.message)
    if event == Event.RETRYING.value:
        raise RetryElsewhere(message["after"], remote)
    raise remote
