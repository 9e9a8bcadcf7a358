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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
from gevent import socket, subprocess

from app import wire
from app.errors import HandoffError, RemoteError, TimedOut
from app.messages import Event
from workers.attempt import Attempt
from workers.context import Interrupt, Retry, TaskCancelled

log = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds that a task in a process has to end after its interrupt, before the process is killed."""

_NOT_IN_TIME = object()
_MAX_LINE = 64 * 1024 * 1024
_ROOT = str(Path(__file__).resolve().parent.parent)


class ProcessDied(HandoffError):
    """The process that ran the task ended before the task did; `killed_by` says how."""

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
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    def run(self, attempt: Attempt) -> Any:
        """Run it in an idle process, or a new one; blocks this greenlet. Returns or raises what the task did, `ProcessDied` where that
        died."""
        process = self._idle.pop() if self._idle else self._start()
        try:
            result = process.run(attempt)
        except BaseException:
            self._put_back(process)
            raise
        self._put_back(process)
        return result

    def close(self) -> None:
        """Kill them all: the worker leaves."""
        for process in list(self._all):
            process.kill()

    def _start(self) -> "_Process":
        process = _Process(self._load)
        self._all.add(process)
        return process

    def _put_back(self, process: "_Process") -> None:
        if process.usable:
            self._idle.append(process)
        else:
            self._all.discard(process)


class _Process:
    """One interpreter. `usable` once its task has ended and it is still there."""

    def __init__(self, load: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        environ = {**os.environ, "PYTHONPATH": _ROOT}
        command = [sys.executable, "-m", "workers.isolated", str(theirs.fileno()), str(os.getpid())]
        self._popen = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environ)
        theirs.close()
        self._socket = ours
        self._buffer = wire.LineBuffer(_MAX_LINE)
        self._send(load)
        self.usable = True

    def run(self, attempt: Attempt) -> Any:
        self.usable = False
        self._send(
            {"id": attempt.id, "function": attempt.function, "args": attempt.raw, "attempt": attempt.attempt, "retry": attempt.may_retry}
        )
        with self._hard_limit(attempt):
            try:
                return self._follow(attempt)
            except Interrupt as interrupt:
                return self._end_early(attempt, interrupt)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._popen.kill()

    def _follow(self, attempt: Attempt) -> Any:
        for message in self._messages():
            event = message["event"]
            if event == Event.PROGRESS.value:
                attempt.note_progress(message["fields"])
            elif event == Event.OUTPUT.value:
                attempt.output(message["value"])
            else:
                self.usable = True
                if attempt.interrupt is not None and event in (Event.CANCELLED.value, Event.TIMED_OUT.value):
                    raise attempt.interrupt
                return _outcome(event, message)
        raise self._died()

    def _end_early(self, attempt: Attempt, interrupt: Interrupt) -> Any:
        """Raise the interrupt over there, and kill the process where that does not end the task."""
        with suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGUSR1 if isinstance(interrupt, TaskCancelled) else signal.SIGUSR2)
        outcome = gevent.with_timeout(GRACE, self._follow, attempt, timeout_value=_NOT_IN_TIME)
        if outcome is _NOT_IN_TIME:
            self.kill()
            raise interrupt
        return outcome

    def _hard_limit(self, attempt: Attempt) -> "_HardLimit":
        return _HardLimit(self, attempt.spec.options.hard_limit)

    def _messages(self) -> Iterator[dict[str, Any]]:
        while data := self._socket.recv(65536):
            for line in self._buffer.feed(data):
                yield wire.decode(line)

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: reading says so
            self._socket.sendall(wire.encode_line(message))

    def _died(self) -> ProcessDied:
        status = self._popen.wait()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        self._socket.close()
        return ProcessDied(f"the process that ran it ended with {how}", killed_by=how)


class _HardLimit:
    """Kills the process once a task has been in it for `limit` seconds; what the kill leads to is then reported as a time-out."""

    def __init__(self, process: _Process, limit: float | None) -> None:
        self._process = process
        self._limit = limit
        self._timer: Any = None
        self._until = 0.0

    def __enter__(self) -> None:
        if self._limit is not None:
            self._until = time.monotonic() + self._limit
            self._timer = gevent.get_hub().loop.timer(self._limit)
            self._timer.start(self._process.kill)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._timer is not None:
            self._timer.close()
        if isinstance(error, ProcessDied) and self._limit is not None and time.monotonic() >= self._until:
            raise TimedOut(f"over its hard limit of {self._limit:g} s; its process was killed") from error


def _outcome(event: str, message: dict[str, Any]) -> Any:
    if event == Event.SUCCEEDED.value:
        return message["result"]
    error = dict(message["error"])
    remote = RemoteError(error.pop("code"), error.pop("message"), **error)
    if event == Event.RETRYING.value:
        raise RetryElsewhere(message["after"], remote)
    raise remote
