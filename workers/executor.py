"""Runs tasks on slots: in greenlets of this process, in native threads, or in processes of their own; every ending becomes one final event.

What is run is an `Attempt`; where it came from and where its events go is not known here. How a process of its own is kept:
`workers/process.py`.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.event import Event as Signal
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from app.errors import Cancelled
from app.figures import Ends
from app.messages import Event, State
from app.settings import Settings
from workers.attempt import Attempt
from workers.context import CURRENT
from workers.endings import end_with
from workers.limits import Limits
from workers.process import ProcessPool
from workers.retirement import Retirement
from workers.slots import Slots

BUDGET = 0.005
"""Seconds that tasks which never block may hold the hub before the others get a turn."""


_allocate_lock = get_original("_thread", "allocate_lock")


class Executor:
    """Runs attempts. Whoever starts one has taken its slot (`slots.take`); it is given back when the code has really ended. `began` counts
    them; `ends` has those that came straight to the Text port."""

    def __init__(
        self, loop: Any, slots: Slots, processes: ProcessPool, limits: Limits, retirement: Retirement, worker: str, settings: Settings
    ) -> None:
        self._loop = loop
        self.slots = slots
        self._processes = processes
        self._limits = limits
        self._worker = worker
        self._data_dir = str(settings.data_dir)
        self._max_result = settings.max_result
        self._tracebacks = settings.tracebacks
        self._count = retirement.count if retirement.counts else None
        self._inbox: deque[Attempt] = deque()
        self._parked: list[Any] = []
        self._handover_due = False
        self._left_something = False
        self._threads = ThreadPool(slots.most)
        self._ways: dict[str, Callable[[Attempt], Any]] = {
            "greenlet": self._call,
            "thread": self._call_in_thread,
            "process": self._call_in_process,
        }
        self.running: dict[Attempt, None] = {}  # in the order in which they began
        self.began = 0
        self.ends = Ends()

    def start(self, attempt: Attempt) -> None:
        """Run it as soon as the hub turns; its slot is taken already."""
        if self._count is not None:
            self._count()
        attempt.data_dir = self._data_dir
        self._inbox.append(attempt)
        self._hand_over_soon()

    def recall(self, attempt: Attempt) -> bool:
        """Take back what has not begun; False where it has."""
        if attempt.state is not State.QUEUED:
            return False
        self._inbox.remove(attempt)
        self.slots.give(attempt.spec)
        return True

    def cancel(self, attempt: Attempt) -> None:
        """End it with `cancelled`: at once where it has not begun, else by `TaskCancelled` raised inside."""
        if self.recall(attempt):
            attempt.fail(Event.CANCELLED, Cancelled("cancelled before it began"))
        else:
            self._limits.cancel(attempt)

    # Greenlets. One runner works through the inbox; the moment a task of it blocks, the hub lets another runner go on with the rest. So
    # tasks that never block cost no switch, and those that do have a greenlet each. A runner whose task blocked, or left a watcher of the
    # loop active, is not used again: what that left behind in its greenlet (a timer not cancelled, say) must not reach the next task.

    def _hand_over_soon(self) -> None:
        if not self._handover_due:
            self._handover_due = True
            self._loop.run_callback(self._hand_over)

    def _hand_over(self) -> None:
        self._handover_due = False
        if self._inbox:
            self._runner().switch()

    def _runner(self) -> Any:
        while self._parked:
            runner = self._parked.pop()
            if not runner.dead:
                return runner
        return gevent.Greenlet(self._work)

    def _work(self) -> None:
        me = gevent.getcurrent()
        while True:
            if self._work_until_blocked(me):
                return
            self._parked.append(me)
            gevent.get_hub().switch()

    def _work_until_blocked(self, me: Any) -> bool:
        """Run what is in the inbox; whether a task blocked."""
        loop, inbox = self._loop, self._inbox
        self._hand_over_soon()
        iteration, until = loop.iteration, time.monotonic() + BUDGET
        while inbox:
            attempt = inbox.popleft()
            attempt.greenlet = me
            self._left_something = False
            self._run(attempt)
            if loop.iteration != iteration or self._left_something:
                return True
            if time.monotonic() > until:
                gevent.sleep(0)
                self._hand_over_soon()
                iteration, until = loop.iteration, time.monotonic() + BUDGET
        return False

    def _run(self, attempt: Attempt) -> None:
        """The barrier around one task: whatever happens in it becomes exactly one ending."""
        self.running[attempt] = None
        self.began += 1
        spec = attempt.spec
        try:
            attempt.begin(self._loop, self._worker, self._in_hub if spec.options.run_in == "thread" else None)
            limited = spec.options.time_limit is not None or spec.options.hard_limit is not None
            if limited and spec.options.run_in != "process":
                self._limits.start(attempt)
            CURRENT.set(attempt)
            try:
                result = self._ways[spec.options.run_in](attempt)
            finally:
                CURRENT.set(None)
                here, attempt.greenlet = attempt.greenlet, None
                if limited or attempt.interrupt is not None:
                    self._limits.stop(attempt, here)
            if attempt.state is State.RUNNING:
                attempt.succeed(result, self._max_result)
        except BaseException as error:  # noqa: BLE001 - a task may raise anything, SystemExit and GreenletExit included
            end_with(attempt, error, self._tracebacks)
        finally:
            del self.running[attempt]
            self.slots.give(spec)

    def _call(self, attempt: Attempt) -> Any:
        active = self._loop.activecnt
        try:
            result = attempt.spec.call(*attempt.args, **attempt.kwargs)
            return _drain(attempt, result) if attempt.spec.is_generator else result
        finally:
            if self._loop.activecnt != active:
                self._left_something = True

    # Threads and processes: a greenlet here waits for them.

    def _call_in_thread(self, attempt: Attempt) -> Any:
        """Its slot stays taken until the thread ends, also where the task was reported before that."""
        ended = Signal()
        outcome: list[Any] = []
        self._threads.spawn(self._in_thread, attempt, outcome, ended)
        ended.wait()
        succeeded, value = outcome
        if not succeeded:
            raise value
        return value

    def _in_thread(self, attempt: Attempt, outcome: list[Any], ended: Signal) -> None:
        CURRENT.set(attempt)
        self._limits.in_threads[attempt] = gevent.getcurrent()
        try:
            outcome[:] = True, self._call(attempt)
        except BaseException as error:  # noqa: BLE001 - raised again by the greenlet that waits
            outcome[:] = False, error
        finally:
            CURRENT.set(None)
            del self._limits.in_threads[attempt]
            self._loop.run_callback_threadsafe(ended.set)

    def _in_hub(self, call: Callable[..., None], *args: Any) -> None:
        """From a task's thread: have it done in a greenlet of the hub's thread; blocks this thread until it is."""
        done = _allocate_lock()
        done.acquire()
        self._loop.run_callback_threadsafe(gevent.spawn, _then, done.release, call, *args)
        done.acquire()

    def _call_in_process(self, attempt: Attempt) -> Any:
        with self._processes.process() as process:
            self._limits.start_soft(attempt)
            return process.run(attempt)


def _drain(attempt: Attempt, values: Iterator[Any]) -> Any:
    """Send each value that a generator yields; its return value is the result."""
    while True:
        try:
            value = next(values)
        except StopIteration as stop:
            return stop.value
        attempt.output(value)


def _then(done: Callable[[], None], call: Callable[..., None], *args: Any) -> None:
    try:
        call(*args)
    finally:
        done()
