"""What makes a task end that does not end by itself: its time limit, its hard limit, a cancel. In greenlets and threads; a process of its
own is killed in `workers/process.py`.

In this order, each step only where the one before did not end the task:

    time_limit          an exception is raised in it, and again each `INSIST_AFTER`; a task in a thread, where nothing can be raised, is
                        reported `timed_out` and let run
    hard_limit          the same once more
    and GRACE later     it is reported `timed_out`, whatever it still does, and the worker is tainted: it takes nothing new, lets the
                        neighbours end, and leaves (`workers/retirement.py`). Where not even this can be done, because the task holds the
                        hub or the GIL, the process is ended at this moment, with a word of who it was (`workers/overrun.py`)

A thread that was let run, after a cancel or at its time limit, taints the worker too, once it has outstayed that by `OVERSTAY`, or by as
much as its time limit where that is longer.
"""

import logging
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

from app.errors import TimedOut
from app.messages import Event, State
from workers.attempt import Attempt
from workers.context import Interrupt, TaskCancelled, TimeLimitExceeded
from workers.endings import end_with, over_hard_limit, over_time_limit
from workers.overrun import GRACE, Overrun

log = logging.getLogger(__name__)

INSIST_AFTER = 1.0
"""Seconds after which a task that swallowed its interrupt gets it again."""

OVERSTAY = 5.0
"""Seconds that a thread may go on after its task was reported as over, before the worker leaves because of it."""

_DEPTH = 20


class Limits:
    """Of one worker process. `taint` is called with the reason, once a task cannot be ended but by the end of the process."""

    def __init__(self, loop: Any, overrun: Overrun, taint: Callable[[str], None]) -> None:
        self._loop = loop
        self._overrun = overrun
        self._taint = taint
        self._last: dict[Attempt, Any] = {}  # the timer of the step that comes next, of those with a hard limit, or in a thread
        self.hopeless: set[Attempt] = set()
        """Those that are reported as over, run on all the same, and are not waited for."""
        self.in_threads: dict[Attempt, Any] = {}
        """Of those that run in threads, the greenlet over there."""

    def start(self, attempt: Attempt) -> None:
        """The time of the task runs from here; in the greenlet that runs it, or waits for its thread."""
        self.start_soft(attempt)
        hard = attempt.spec.options.hard_limit
        if hard is not None:
            attempt.deadline = attempt.deadline or time.monotonic() + hard
            self._overrun.watch(attempt, hard)
            self._next(attempt, hard, self._over_hard_limit)

    def start_soft(self, attempt: Attempt) -> None:
        """As `start`, for the time limit alone."""
        limit = attempt.spec.options.time_limit
        if limit is not None:
            attempt.deadline = time.monotonic() + limit
            self._insist(attempt, limit, TimeLimitExceeded(over_time_limit(limit)))

    def stop(self, attempt: Attempt, of: Any) -> None:
        """Its code has ended, in the greenlet `of`."""
        if attempt.insistence is not None:
            attempt.insistence.close()
        timer = self._last.pop(attempt, None)
        if timer is not None:
            timer.close()
        if attempt.spec.options.hard_limit is not None:
            self._overrun.forget(attempt, of)
        self.hopeless.discard(attempt)

    def cancel(self, attempt: Attempt) -> None:
        """Raise `TaskCancelled` in a task that runs, until it ends."""
        interrupt = TaskCancelled("cancelled")
        self.interrupt(attempt, interrupt)
        if attempt.state is State.RUNNING:
            self._insist(attempt, INSIST_AFTER, interrupt)

    def interrupt(self, attempt: Attempt, interrupt: Interrupt) -> None:
        """Raise it inside the task, now, or what it was interrupted with before. Call it in the hub or a greenlet."""
        if attempt.state is not State.RUNNING:
            return
        if attempt.interrupt is None:
            attempt.interrupt = interrupt
        if attempt.spec.options.run_in == "thread":
            self._let_run(attempt)
        else:
            self._loop.run_callback(self._throw, attempt)

    def _insist(self, attempt: Attempt, after: float, interrupt: Interrupt) -> None:
        """Interrupt it after so many seconds, and again each `INSIST_AFTER` while it goes on all the same."""
        if attempt.insistence is not None:
            attempt.insistence.close()
        attempt.insistence = self._loop.timer(after, INSIST_AFTER)
        attempt.insistence.start(self.interrupt, attempt, interrupt)

    def _throw(self, attempt: Attempt) -> None:
        """In the hub, so nothing of the task runs meanwhile: it is still this attempt that waits in this greenlet, or it is over."""
        if attempt.greenlet is not None and attempt.state is State.RUNNING:
            attempt.greenlet.throw(attempt.interrupt)

    def _let_run(self, attempt: Attempt) -> None:
        """Nothing can be raised in a thread: the task is reported, and its slot stays taken until the thread ends."""
        assert attempt.interrupt is not None
        end_with(attempt, attempt.interrupt)
        if attempt not in self._last:
            self._next(attempt, max(OVERSTAY, attempt.spec.options.time_limit or 0.0), self._give_up)

    def _next(self, attempt: Attempt, after: float, step: Callable[[Attempt], None]) -> None:
        timer = self._last[attempt] = self._loop.timer(after)
        timer.start(step, attempt)

    def _over_hard_limit(self, attempt: Attempt) -> None:
        hard = attempt.spec.options.hard_limit
        assert hard is not None
        self._last.pop(attempt).close()
        self._next(attempt, GRACE, self._give_up)
        self.interrupt(attempt, TimeLimitExceeded(over_hard_limit(hard)))

    def _give_up(self, attempt: Attempt) -> None:
        """It has had its last chance, and still runs."""
        self._last.pop(attempt).close()
        self.hopeless.add(attempt)
        hard = attempt.spec.options.hard_limit
        if hard is not None:
            self._overrun.forget(attempt, attempt.greenlet)
            if attempt.state is State.RUNNING:
                attempt.fail(Event.TIMED_OUT, TimedOut(f"{over_hard_limit(hard)}; it does not end", stack=self._stack(attempt)))
        log.warning("task-stuck: %s goes on and cannot be ended\n%s", attempt.function, self._stack(attempt), extra={"task": attempt.id})
        self._taint(f"{attempt.function} (task {attempt.id or 'without an id'}) goes on and cannot be ended")

    def _stack(self, attempt: Attempt) -> str:
        """Where a task stands that runs on; one in a thread may wait there in a greenlet, or hold the thread."""
        frame = getattr(self.in_threads.get(attempt, attempt.greenlet), "gr_frame", None)
        if frame is None:
            frame = next((frame for frame in sys._current_frames().values() if _is_of(frame, attempt)), None)
        return "".join(traceback.format_stack(frame, limit=_DEPTH)) if frame is not None else ""


def _is_of(frame: types.FrameType | None, attempt: Attempt) -> bool:
    """Whether this is the stack of the thread that runs the attempt: some frame in it was called with it."""
    while frame is not None:
        if frame.f_locals.get("attempt") is attempt:
            return True
        frame = frame.f_back
    return False
