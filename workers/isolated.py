"""A process of its own for tasks: a clean interpreter, unpatched, one task at a time. Started by `workers/process.py`; ends when that
closes.

Lines in: what to load, then one task after the other. Lines out: its progress, its outputs, and one ending. SIGUSR1 cancels the task that
runs, SIGUSR2 says that its time is up.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

from app import wire
from app.child import die_with_parent, flush
from app.ends import LAST_SIGNAL
from app.errors import HandoffError
from app.messages import Event
from workers.attempt import encode_value, error_object, failure, retry_after
from workers.context import CURRENT, Interrupt, TaskCancelled, TaskContext, TimeLimitExceeded, progress_fields
from workers.registry import REGISTRY, Function

log = logging.getLogger(__name__)

_PROGRESS_EVERY = 0.05
_MAX_LINE = 64 * 1024 * 1024
_LATE = {signal.SIGUSR1: TaskCancelled, signal.SIGUSR2: TimeLimitExceeded}


class Channel:
    """Lines to and from the worker. Progress is thinned out here already, the newest kept: a tight loop must not flood the worker."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._sent_at = 0.0
        self._pending: dict[str, Any] | None = None
        self._timer: threading.Timer | None = None
        self.sending = False

    def lines(self) -> Iterator[dict[str, Any]]:
        """The messages of the worker, until it closes."""
        buffer = wire.LineBuffer(_MAX_LINE)
        while data := self._socket.recv(65536):
            for line in buffer.feed(data):
                yield wire.decode(line)

    def say(self, event: Event, **fields: Any) -> None:
        """Send an event, after the progress that still waits."""
        self._send(wire.encode_line({"event": event.value, **fields}))

    def give(self, event: Event, key: str, value: bytes) -> None:
        """As `say`, with a value that is JSON already."""
        self._send(b'{"event":"%b","%b":%b}\n' % (event.value.encode(), key.encode(), value))

    def _send(self, line: bytes) -> None:
        with self._whole_lines():
            self._send_pending()
            self._socket.sendall(line)

    def begin(self) -> None:
        """A new task: its first progress is sent at once."""
        self._sent_at = 0.0

    def progress(self, fields: dict[str, Any]) -> None:
        """Send it now, or soon."""
        with self._whole_lines():
            self._pending = fields
            wait = self._sent_at + _PROGRESS_EVERY - time.monotonic()
            if wait <= 0:
                self._send_pending()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._due)
                self._timer.daemon = True
                self._timer.start()

    @contextlib.contextmanager
    def _whole_lines(self) -> Iterator[None]:
        """In the task's thread; meanwhile no interrupt is raised, or half a line might leave."""
        self.sending = True
        try:
            with self._lock:
                yield
        finally:
            self.sending = False

    def _due(self) -> None:
        with self._lock:
            self._send_pending()

    def _send_pending(self) -> None:
        self._timer = None
        pending, self._pending = self._pending, None
        if pending is not None:
            self._sent_at = time.monotonic()
            self._socket.sendall(wire.encode_line({"event": Event.PROGRESS.value, "fields": pending}))


class IsolatedContext(TaskContext):
    """What the task sees here."""

    __slots__ = ("channel",)

    def __init__(self, task_id: str, function: str, attempt: int, data_dir: str, channel: Channel) -> None:
        super().__init__(task_id, function, attempt, data_dir)
        self.channel = channel

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """As `TaskContext.progress`."""
        self.channel.progress(progress_fields(done, total, note))
        self.check()


def main(parent: int, fd: int, stacks: int) -> None:
    """Serve the worker (process `parent`) at the other end of `fd` until it closes. A crash writes where it happened to `stacks`."""
    die_with_parent(parent)
    os.set_inheritable(stacks, False)
    faulthandler.enable(stacks)
    faulthandler.register(LAST_SIGNAL, stacks, chain=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C goes to the whole group; the worker decides when this ends
    for number in _LATE:
        signal.signal(number, _interrupt)
    os.set_inheritable(fd, False)  # what a task starts must not keep the line to the worker open
    sock = socket.socket(fileno=fd)
    sock.setblocking(True)
    sock.set_inheritable(False)  # what a task starts must not hold it open
    channel = Channel(sock)
    messages = channel.lines()
    load = next(messages)
    sys.path[:] = load["path"]
    REGISTRY.load(load["tasks"], load["task"])
    REGISTRY.freeze()
    channel.say(Event.STARTED)
    for message in messages:
        _run(channel, message, load["data_dir"])


def _run(channel: Channel, message: dict[str, Any], data_dir: str) -> None:
    """The barrier around one task: every ending is one event, unless the process dies of it."""
    spec = REGISTRY.get(message["function"])
    context = IsolatedContext(message["id"], spec.name, message["attempt"], data_dir, channel)
    try:
        channel.give(Event.SUCCEEDED, "result", encode_value(spec.name, "returned", _call(channel, context, spec, message["args"])))
    except TaskCancelled as cancelled:
        channel.say(Event.CANCELLED, error={"code": "cancelled", "message": failure(cancelled).message})
    except TimeLimitExceeded as late:
        channel.say(Event.TIMED_OUT, error={"code": "timed_out", "message": failure(late).message})
    except HandoffError as error:
        _failed(channel, spec, message, error, error)
    except BaseException as error:  # a task may raise anything; exec, _exit and a crash are seen by the worker
        log.info("task-failed: %s raised", spec.name, exc_info=error, extra={"task": context.id})
        _failed(channel, spec, message, error, failure(error))


def _failed(channel: Channel, spec: Function, message: dict[str, Any], cause: BaseException, error: HandoffError) -> None:
    after = retry_after(spec.options, cause, message["attempt"]) if message["retry"] else None
    if after is None:
        channel.say(Event.FAILED, error=error_object(error))
    else:
        channel.say(Event.RETRYING, after=after, error=error_object(error))


def _call(channel: Channel, context: IsolatedContext, spec: Function, raw: Any) -> Any:
    args, kwargs = spec.bind(raw)
    channel.begin()
    CURRENT.set(context)  # from here to the reset an interrupt is raised in the task; a signal that comes later is too late
    try:
        result = spec.call(*args, **kwargs)
        if not spec.is_generator:
            return result
        while True:
            try:
                value = next(result)
            except StopIteration as stop:
                return stop.value
            channel.give(Event.OUTPUT, "value", encode_value(spec.name, "yielded", value))
            context.check()
    finally:
        CURRENT.set(None)
        flush()  # what it printed: this process ends by a kill, after which nothing is written out


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    context = CURRENT.get()
    if not isinstance(context, IsolatedContext):
        return
    interrupt: Interrupt = _LATE[signal.Signals(number)](signal.Signals(number).name)
    context.interrupt = interrupt
    if not context.channel.sending:  # else it is raised once the line is out
        raise interrupt


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
