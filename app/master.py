"""The preforking runner: forks the processes of each role, watches, reaps and replaces them, and ends them all. Stdlib only, no gevent.

It reads from top to bottom. Signal handlers only queue; one loop acts, in the main thread, which alone forks (PR_SET_PDEATHSIG follows it).

    starting ──all ready──▶ serving ──TERM──▶ stopping (graceful, then killed) ──▶ gone
        └──────── INT, QUIT, a second TERM, a failed boot ──▶ stopping (fast, then killed) ──▶ gone

What happens in a child before its role runs is in `app/child.py`; what a role is, only `run.py` knows.
"""

import contextlib
import enum
import logging
import os
import random
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from app import child
from app.child import Child
from app.ends import OomKills, killed_by, leave_word, peak

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)
FAST_LIMIT = 2.0
"""Seconds that a process has to end when it is told to end fast."""
MARGIN = 2.0
"""Seconds beyond the graceful limit that a process has to say what became of its tasks."""
STEADY = 2.0
"""A process that served that long, in seconds, was no failure to start: it is replaced at once."""
FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Role:
    """So many processes that share a listener and do the same."""

    name: str
    count: int
    listener: socket.socket
    run: Callable[[Child], None]


class _Stop(enum.Enum):
    """How far stopping has gone; each is faster than the one before."""

    NO = 0
    GRACEFUL = 1
    FAST = 2
    KILL = 3


@dataclass(slots=True)
class _Place:
    """A place for one process at a time: `worker-2` stays `worker-2` when it is replaced."""

    name: str
    role: Role
    pid: int = 0
    pipe: int = -1  # its ready pipe, until it is ready or gone
    ready_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0


class Master:
    """Runs the roles until it is told to stop. `on_ready` is called once, when every process serves for the first time."""

    def __init__(
        self, roles: Sequence[Role], graceful: float, level: str, on_ready: Callable[[], None], run_dir: Path | None = None
    ) -> None:
        self._places = [_Place(_name(role, number), role) for role in roles for number in range(1, role.count + 1)]
        self._listeners = [role.listener for role in roles]
        self._graceful = graceful
        self._level = level
        self._on_ready = on_ready
        self._run_dir = run_dir
        self._oom_kills = OomKills()
        self._was_ready = False
        self._stop = _Stop.NO
        self._kill_at = _NEVER
        self._exit_code = 0
        self._queue: deque[int] = deque()
        self._lifeline, held = os.pipe()  # children hold the reading end; the writing end lives as long as the master
        self._wakeup, self._waker = os.pipe()
        self._private = (held, self._wakeup, self._waker)

    def run(self) -> int:
        """Start everything and stay until the last process has ended; the exit code."""
        self._catch_signals()
        try:
            while self._stop is _Stop.NO or self._living():
                self._start_missing()
                self._wait()
                self._act_on_signals()
                self._reap()
                self._kill_overdue()
        finally:
            self._kill_all()
        return self._exit_code

    def _catch_signals(self) -> None:
        for fd in (self._wakeup, self._waker):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._queue_signal)

    def _queue_signal(self, number: int, _frame: FrameType | None) -> None:
        self._queue.append(number)

    def _living(self) -> list[_Place]:
        return [place for place in self._places if place.pid]

    def _start_missing(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if self._stop is _Stop.NO and not place.pid and place.start_at <= now:
                self._start(place)

    def _start(self, place: _Place) -> None:
        child.flush()  # or the child would write it again
        place.ready_at = 0.0
        place.pipe, ready_pipe = os.pipe()
        os.set_blocking(place.pipe, False)
        private, master = self._not_for(place), os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            place.pid = os.fork()
            if place.pid == 0:
                self._live(place, ready_pipe, child.Origin(master, SIGNALS, private, mask))
        except OSError as error:
            log.error("%s cannot be started: %s", place.name, error.strerror)
            self._put_off(place)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(ready_pipe)

    def _not_for(self, place: _Place) -> tuple[int, ...]:
        listeners = [listener.fileno() for listener in self._listeners if listener is not place.role.listener]
        pipes = [other.pipe for other in self._places if other.pipe >= 0]
        return (*self._private, *listeners, *pipes)

    def _live(self, place: _Place, ready_pipe: int, origin: child.Origin) -> NoReturn:
        def ready() -> None:
            os.write(ready_pipe, b"\n")

        child.live(Child(place.name, place.role.listener, ready, self._lifeline), place.role.run, self._level, origin)

    def _put_off(self, place: _Place) -> None:
        """When the place is filled again: at once the first time, then later and later, and never all together."""
        delay = FIRST_DELAY * 2 ** min(place.failures - 1, 16) if place.failures else 0.0
        place.failures += 1
        place.start_at = time.monotonic() + min(delay, LONGEST_DELAY) * random.uniform(0.5, 1.0)
        self._forget(place)

    def _forget(self, place: _Place) -> None:
        place.pid = 0
        if place.pipe >= 0:
            os.close(place.pipe)
            place.pipe = -1

    def _wait(self) -> None:
        """Until a signal comes, a process is ready, or something is due."""
        poll = select.poll()
        for fd in (self._wakeup, *(place.pipe for place in self._places if place.pipe >= 0)):
            poll.register(fd, select.POLLIN)
        poll.poll(self._until_due())
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        for place in self._living():
            self._note_ready(place)
        if not self._was_ready and self._stop is _Stop.NO and all(place.ready_at for place in self._places):
            self._was_ready = True
            self._on_ready()

    def _until_due(self) -> float | None:
        starts = [place.start_at for place in self._places if not place.pid and self._stop is _Stop.NO]
        due = min([*starts, self._kill_at])
        return None if due == _NEVER else max(0.0, due - time.monotonic()) * 1000 + 1

    def _note_ready(self, place: _Place) -> None:
        """Whether it has said that it is ready; its pipe is of no use after that, nor after its end."""
        if place.pipe < 0:
            return
        with contextlib.suppress(BlockingIOError):
            if os.read(place.pipe, 1):
                place.ready_at = time.monotonic()
            os.close(place.pipe)
            place.pipe = -1

    def _act_on_signals(self) -> None:
        while self._queue:
            number = self._queue.popleft()
            if number == signal.SIGTERM:
                self._stop_at_least(_Stop.GRACEFUL)
            elif number in (signal.SIGINT, signal.SIGQUIT):
                self._stop_at_least(_Stop.FAST)

    def _stop_at_least(self, wanted: _Stop) -> None:
        """Begin to stop; where that has begun already, go on one step faster."""
        if wanted.value <= self._stop.value:
            wanted = _Stop(min(self._stop.value + 1, _Stop.KILL.value))
        self._stop = wanted
        if wanted is _Stop.KILL:
            self._kill_all()
            return
        number, limit = (signal.SIGTERM, self._graceful + MARGIN) if wanted is _Stop.GRACEFUL else (signal.SIGINT, FAST_LIMIT)
        log.info("stopping; what still runs in %g s is killed", limit)
        self._kill_at = time.monotonic() + limit
        for place in self._living():
            os.kill(place.pid, number)

    def _reap(self) -> None:
        by_pid = {place.pid: place for place in self._living()}
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                place = by_pid.get(ended.si_pid)
                if place is not None:
                    _kill_group(place.pid)  # what it had started; while it is not reaped, nobody else can have its number
                _, status, usage = os.wait4(ended.si_pid, 0)
                if place is not None:
                    self._has_ended(place, os.waitstatus_to_exitcode(status), usage.ru_maxrss)

    def _has_ended(self, place: _Place, code: int, max_rss: int) -> None:
        """`code` as `subprocess` has it; `max_rss` in KiB."""
        self._note_ready(place)
        out_of_memory = self._oom_kills.again() and code == -signal.SIGKILL
        left = code == 0 and place.ready_at > 0
        level = logging.INFO if left or self._stop is not _Stop.NO else logging.WARNING
        why = " (probably out of memory)" if out_of_memory else ""
        log.log(level, "%s (pid %d) ended: %s%s, having taken %d MiB", place.name, place.pid, killed_by(code), why, peak(max_rss))
        if self._run_dir is not None and code != 0 and self._stop is _Stop.NO:
            self._leave_word(self._run_dir, place, {"killed_by": killed_by(code), "memory": peak(max_rss), "out_of_memory": out_of_memory})
        if left or (place.ready_at and time.monotonic() - place.ready_at >= STEADY):
            place.failures = 0
        self._put_off(place)
        if left:
            place.failures = 0  # it left of its own accord, and so may the next one
        if code in (child.EXIT_SETTINGS, child.EXIT_NOT_BOOTED) and not self._was_ready and self._stop is _Stop.NO:
            log.error("%s could not start, for the reason above; ending", place.name)
            self._exit_code = code
            self._stop_at_least(_Stop.FAST)

    def _leave_word(self, run_dir: Path, place: _Place, end: dict[str, Any]) -> None:
        """For whoever has to report its tasks."""
        try:
            leave_word(run_dir, place.name, place.pid, end)
        except OSError as error:
            log.error("cannot say how %s ended: %s", place.name, error)

    def _kill_overdue(self) -> None:
        if time.monotonic() >= self._kill_at:
            log.warning("killed, because they did not end in time: %s", ", ".join(place.name for place in self._living()))
            self._stop_at_least(_Stop.KILL)

    def _kill_all(self) -> None:
        self._kill_at = _NEVER
        for place in self._living():
            _kill_group(place.pid)


def _name(role: Role, number: int) -> str:
    return role.name if role.count == 1 and role.name == "gateway" else f"{role.name}-{number}"


def _kill_group(pid: int) -> None:
    """The process that leads the group, and what it started; a fork that has not come to lead its group yet, alone."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
