"""A worker's executor where there is no worker: in a test's own process, which is not patched, must not be killed, and has children that
are not to be reaped. How a test uses it is in `workers/testing.py`. No part of the product imports this.
"""

import signal
import threading
import time
import types
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event as Signal
from gevent.monkey import get_original

from app import settings
from app.errors import HandoffError
from app.messages import Event, State, final_line
from workers.attempt import Attempt
from workers.context import CURRENT, TimeLimitExceeded, progress_fields
from workers.endings import over_hard_limit, over_time_limit
from workers.executor import Executor
from workers.limits import INSIST_AFTER, Limits
from workers.overrun import Overrun
from workers.process import ProcessPool
from workers.retirement import Retirement
from workers.slots import Slots
from workers.watchdog import in_the_task

WORKER = "test"
"""What `started` says of the worker."""

_LOOK_EVERY = 0.05
_native_thread_id = get_original("_thread", "get_ident")


class KeptLines:
    """Keeps the lines of all attempts."""

    journal = ""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def event(self, attempt: Attempt, line: bytes) -> None:
        self.lines.append(line)

    def final(self, attempt: Attempt, event: Event, key: bytes, value: bytes) -> None:
        self.lines.append(final_line(attempt.label, event, attempt.seq, attempt.attempt, key, value))

    def flush(self) -> None:
        """It is read at the end."""

    def wait(self) -> None:
        """Nobody is far behind."""


class ToldAttempt(Attempt):
    """Tells each progress, so that what a test sees does not hang on the clock. `raised`: what its code ended with."""

    __slots__ = ("over", "raised")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.over = Signal()
        self.raised: BaseException | None = None

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        self.check()
        fields = progress_fields(done, total, note)
        if self._in_hub is None:
            self.note_progress(fields)
        else:
            self._in_hub(self.note_progress, fields)

    def note_progress(self, fields: dict[str, Any]) -> None:
        if self.state is State.RUNNING:
            self._say_progress(fields)

    def retry(self, after: float, error: HandoffError) -> None:
        super().retry(after, error)
        self.over.set()

    def _end(self, event: Event, key: bytes, value: bytes) -> None:
        super()._end(event, key, value)
        self.over.set()


class TestedExecutor(Executor):
    """A worker's, which is in no worker."""

    def __init__(self, data_dir: Path) -> None:
        loop = gevent.get_hub().loop
        chosen = settings.load(["--data-dir", str(data_dir)], {})
        processes = ProcessPool(str(chosen.data_dir), (), ())  # none is started: its child watcher would reap children of the test
        limits = TestedLimits(loop, NoOverrun(), _ignore)
        super().__init__(loop, Slots(chosen.concurrency, 1), processes, limits, Retirement(loop, 0, 0, _ignore), WORKER, chosen)

    def _call(self, attempt: Attempt) -> Any:
        try:
            return super()._call(attempt)
        except BaseException as error:
            if isinstance(attempt, ToldAttempt):
                attempt.raised = error
            raise

    def close(self) -> None:
        """End the threads, if that can be had at once: one that a task still holds ends after it."""
        if not self.slots.used:
            self._threads.kill()


class NoOverrun(Overrun):
    """The test's own process is not killed for a task."""

    def __init__(self) -> None:
        """Nothing is opened, and no signal is taken."""

    def watch(self, attempt: Attempt, hard_limit: float) -> None:
        """It gets its interrupt, and no more."""

    def forget(self, attempt: Attempt, of: Any) -> None:
        """It was not watched."""


class TestedLimits(Limits):
    """Also for what blocks this thread, to which the timers of the hub do not come: there a signal does."""

    _alarm: "_Alarm | None" = None

    def start(self, attempt: Attempt) -> None:
        super().start(attempt)
        if attempt.spec.options.run_in == "greenlet":
            self._alarm = _Alarm(attempt)

    def stop(self, attempt: Attempt, of: Any) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.stop()
        super().stop(attempt, of)


class _Alarm:
    """From the deadline of a task on, raises its interrupt where it blocks the main thread, again each `INSIST_AFTER` if it goes on."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._at = attempt.deadline
        self._over = threading.Event()
        self._main = _native_thread_id()
        self._before = signal.signal(signal.SIGUSR2, self._ring)
        self._thread = threading.Thread(target=self._watch, name="time-limit", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Its code has ended. The thread first, so that no signal comes after its handler has gone."""
        self._over.set()
        self._thread.join()
        signal.signal(signal.SIGUSR2, self._before or signal.SIG_DFL)

    def _watch(self) -> None:
        while not self._over.wait(max(self._at - time.monotonic(), _LOOK_EVERY)):
            signal.pthread_kill(self._main, signal.SIGUSR2)  # ends its system call, too

    def _ring(self, number: int, frame: types.FrameType | None) -> None:
        attempt, now = self._attempt, time.monotonic()
        if now < self._at or CURRENT.get() is not attempt or attempt.state is not State.RUNNING or not in_the_task(frame):
            return
        self._at = now + INSIST_AFTER
        attempt.interrupt = attempt.interrupt or TimeLimitExceeded(_limit_of(attempt))
        raise attempt.interrupt


def _limit_of(attempt: Attempt) -> str:
    options = attempt.spec.options
    return over_hard_limit(options.hard_limit or 0.0) if options.time_limit is None else over_time_limit(options.time_limit)


def _ignore(*_: Any) -> None:
    """A worker would leave; the test's process stays."""
