"""The preforking runner: forks the processes of each role, watches, reaps and replaces them, and ends them all. Stdlib only, no gevent.

It reads from top to bottom. Signal handlers only queue; one loop acts, in the main thread, which alone forks (PR_SET_PDEATHSIG follows it).

    starting ──all ready──▶ serving ──TERM──▶ stopping (graceful, then killed) ──▶ gone
        └──────── INT, QUIT, a second TERM, a failed boot ──▶ stopping (fast, then killed) ──▶ gone

HUP, while serving: `app/reload.py`; where it means that the terminal was closed, as TERM. USR1 is passed on to all: they open their logs
anew. What happens in a child before its role runs is in `app/child.py`; what a role is, only `run.py` knows.
"""

import contextlib
import enum
import functools
import logging
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from app import child
from app import log as log_file
from app.child import Child
from app.ends import OomKills, killed_by, leave_word, peak
from app.offspring import Place, Role, has_terminal, kill_group, places
from app.reload import Reload
from app.row import Row

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1)
FAST_LIMIT = 2.0
"""Seconds that a process has to end when it is told to end fast."""
MARGIN = 2.0
"""Seconds beyond the graceful limit that a process has to say what became of its tasks."""
STEADY = 2.0
"""A process that served that long, in seconds, was no failure to start: it is replaced at once."""
_NEVER = float("inf")


class _Stop(enum.Enum):
    """How far stopping has gone; each is faster than the one before."""

    NO = 0
    GRACEFUL = 1
    FAST = 2
    KILL = 3


class Master:
    """Runs the roles until it is told to stop. `on_ready` is called once, when every process serves for the first time.
    `private` are descriptors that no child is to have."""

    def __init__(
        self,
        roles: Sequence[Role],
        graceful: float,
        level: str,
        on_ready: Callable[[], None],
        run_dir: Path | None = None,
        private: tuple[int, ...] = (),
        row: Row | None = None,
    ) -> None:
        self._places = [place for role in roles for place in places(role)]
        self._leavers: list[Place] = []
        self._reload = Reload(self._places, self._leavers, self._start, run_dir)
        self._listeners = [role.listener for role in roles]
        self._graceful = graceful
        self._level = level
        self._on_ready = on_ready
        self._run_dir = run_dir
        self._row = row
        self._oom_kills = OomKills()
        self._had_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # as nohup(1) sets it
        self._was_ready = False
        self._stop = _Stop.NO
        self._kill_at = _NEVER
        self._exit_code = 0
        self._queue: deque[int] = deque()
        self._lifeline, held = os.pipe()  # children hold the reading end; the writing end lives as long as the master
        self._wakeup, self._waker = os.pipe()
        self._private = (held, self._wakeup, self._waker, *private, *(row.descriptors if row is not None else ()))

    def run(self) -> int:
        """Start everything and stay until the last process has ended; the exit code."""
        self._catch_signals()
        try:
            while self._stop is _Stop.NO or self._living():
                self._start_missing()
                self._go_on()
                self._wait()
                self._act_on_signals()
                self._reap()
                self._kill_overdue()
        finally:
            self._kill_all()
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what comes now changes nothing, the exit code neither
        return self._exit_code

    def _catch_signals(self) -> None:
        for fd in (self._wakeup, self._waker):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._queue_signal)
        child.let_orders_in()

    def _queue_signal(self, number: int, _frame: FrameType | None) -> None:
        self._queue.append(number)

    def _living(self) -> list[Place]:
        return [place for place in (*self._places, *self._leavers, *self._reload.successors) if place.pid]

    def _go_on(self) -> None:
        if self._was_ready and self._stop is _Stop.NO:
            self._reload.step()

    def _start_missing(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if self._stop is _Stop.NO and not place.pid and place.start_at <= now:
                self._start(place)

    def _start(self, place: Place) -> None:
        if self._was_ready and self._row is not None and not place.successor:
            self._row.respawned(place.role.name)
        child.flush()  # or the child would write it again
        place.booted, place.ready_at, place.leaving = False, 0.0, False
        place.pipe, ready_pipe = os.pipe()
        os.set_blocking(place.pipe, False)
        private, master = self._not_for(place), os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            place.pid = os.fork()
            if place.pid == 0:
                self._live(place, ready_pipe, child.Origin(master, SIGNALS, private, mask))
        except OSError as error:
            log.error("process-unstartable: %s: %s", place.name, error.strerror)
            place.put_off()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(ready_pipe)

    def _not_for(self, place: Place) -> tuple[int, ...]:
        listeners = [listener.fileno() for listener in self._listeners if listener is not place.role.listener]
        pipes = [other.pipe for other in self._living() if other.pipe >= 0]
        return (*self._private, *listeners, *pipes, place.pipe)

    def _live(self, place: Place, ready_pipe: int, origin: child.Origin) -> NoReturn:
        say = functools.partial(os.write, ready_pipe)
        one = Child(place.name, place.role.listener, say, self._lifeline, place.successor)
        child.live(one, place.role.run, self._level, origin)

    def _wait(self) -> None:
        """Until a signal comes, a process is ready, or something is due."""
        poll = select.poll()
        for fd in (self._wakeup, *(place.pipe for place in self._living() if place.pipe >= 0)):
            poll.register(fd, select.POLLIN)
        poll.poll(self._until_due())
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        for place in self._living():
            place.hear()
            if place.leaving and self._stop is _Stop.NO:
                self._fill_anew(place)
        if not self._was_ready and self._stop is _Stop.NO and all(place.ready_at for place in self._places):
            self._was_ready = True
            self._on_ready()

    def _until_due(self) -> float | None:
        starts = [place.start_at for place in self._places if not place.pid and self._stop is _Stop.NO]
        due = min([*starts, self._kill_at, self._reload.due if self._stop is _Stop.NO else _NEVER])
        return None if due == _NEVER else max(0.0, due - time.monotonic()) * 1000 + 1

    def _fill_anew(self, place: Place) -> None:
        """It leaves, and may take its time: another starts at once; but not more than leave of as many as serve."""
        if place in self._places and sum(other.role is place.role and not other.outdated for other in self._leavers) < place.role.count:
            log.info("%s (pid %d) leaves; another takes its place", place.name, place.pid)
            self._leavers.append(place.hand_over())

    def _act_on_signals(self) -> None:
        while self._queue:
            number = self._queue.popleft()
            if number == signal.SIGTERM:
                self._stop_at_least(_Stop.GRACEFUL)
            elif number in (signal.SIGINT, signal.SIGQUIT):
                self._stop_at_least(_Stop.FAST)
            elif number == signal.SIGHUP:
                if self._had_terminal and not has_terminal():
                    self._stop_at_least(_Stop.GRACEFUL)  # it was closed, and nobody is there any more
                else:
                    self._reload.ask()
            elif number == signal.SIGUSR1:
                log_file.reopen()
                self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        for place in self._living():
            os.kill(place.pid, number)

    def _stop_at_least(self, wanted: _Stop) -> None:
        """Begin to stop; where that has begun already, go on one step faster."""
        if wanted.value <= self._stop.value:
            wanted = _Stop(min(self._stop.value + 1, _Stop.KILL.value))
        self._stop = wanted
        for listener in self._listeners:
            listener.close()  # nobody accepts any more: who connects is refused at once, and does not wait in vain
        if wanted is _Stop.KILL:
            self._kill_all()
            return
        number, limit = (signal.SIGTERM, self._graceful + MARGIN) if wanted is _Stop.GRACEFUL else (signal.SIGINT, FAST_LIMIT)
        log.info("stopping; what still runs in %g s is killed", limit)
        self._kill_at = time.monotonic() + limit
        self._pass_on(number)

    def _reap(self) -> None:
        by_pid = {place.pid: place for place in self._living()}
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                place = by_pid.get(ended.si_pid)
                if place is not None:
                    kill_group(place.pid)  # what it had started; while it is not reaped, nobody else can have its number
                _, status, usage = os.wait4(ended.si_pid, 0)
                if place is not None:
                    self._has_ended(place, os.waitstatus_to_exitcode(status), usage.ru_maxrss)

    def _has_ended(self, place: Place, code: int, max_rss: int) -> None:
        """`code` as `subprocess` has it; `max_rss` in KiB."""
        place.hear()
        out_of_memory = self._oom_kills.again() and code == -signal.SIGKILL
        told = place.outdated and code == -signal.SIGHUP  # to leave, before it had begun
        left = told or (code == 0 and place.ready_at > 0)
        level = logging.INFO if left or self._stop is not _Stop.NO else logging.WARNING
        why = " (probably out of memory)" if out_of_memory else ""
        log.log(
            level,
            "process-exited: %s (pid %d) ended: %s%s, having taken %d MiB",
            place.name,
            place.pid,
            killed_by(code),
            why,
            peak(max_rss),
        )
        if self._run_dir is not None and code != 0 and self._stop is _Stop.NO:
            self._leave_word(self._run_dir, place, {"killed_by": killed_by(code), "memory": peak(max_rss), "out_of_memory": out_of_memory})
        if left or (place.ready_at and time.monotonic() - place.ready_at >= STEADY):
            place.failures = 0
        place.put_off()
        if left:
            place.failures = 0  # it left of its own accord, and so may the next one
        if place in self._leavers:
            self._leavers.remove(place)
        self._reload.has_ended(place)
        if code in (child.EXIT_SETTINGS, child.EXIT_NOT_BOOTED) and not self._was_ready and self._stop is _Stop.NO:
            log.error("process-unstartable: %s could not start, for the reason above; ending", place.name)
            self._exit_code = code
            self._stop_at_least(_Stop.FAST)

    def _leave_word(self, run_dir: Path, place: Place, end: dict[str, Any]) -> None:
        """For whoever has to report its tasks."""
        try:
            leave_word(run_dir, place.name, place.pid, end)
        except OSError as error:
            log.error("cannot say how %s ended: %s", place.name, error)

    def _kill_overdue(self) -> None:
        if time.monotonic() >= self._kill_at:
            log.warning("process-killed: killed, because they did not end in time: %s", ", ".join(place.name for place in self._living()))
            self._stop_at_least(_Stop.KILL)

    def _kill_all(self) -> None:
        self._kill_at = _NEVER
        for place in self._living():
            kill_group(place.pid)
