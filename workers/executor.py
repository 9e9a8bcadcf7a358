"""Runs tasks on slots: in greenlets of this process, in native threads, or in processes of their own; every ending becomes one final event.

What is run is an `Attempt`; where it came from and where its events go is not known here. How a process of its own is kept:
`workers/process.py`.
"""

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.event import Event as Signal
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from app.errors import Cancelled, Failed, HandoffError, Interrupted, TimedOut
from app.messages import Event, State
from workers.attempt import Attempt, back_off, failure, retry_after
from workers.context import CURRENT, Interrupt, TaskCancelled, TimeLimitExceeded, speakable
from workers.process import ProcessDied, ProcessPool, RetryElsewhere
from workers.slots import Slots

log = logging.getLogger(__name__)

BUDGET = 0.005
"""Seconds that tasks which never block may hold the hub before the others get a turn."""

INSIST_AFTER = 1.0
"""Seconds after which a task that swallowed its interrupt gets it again."""


_allocate_lock = get_original("_thread", "allocate_lock")


class Executor:
    """Runs attempts. Whoever starts one has taken its slot (`slots.take`); it is given back when the code has really ended."""

    def __init__(
        self, loop: Any, slots: Slots, processes: ProcessPool, worker: str, data_dir: str, max_result: int, tracebacks: bool
    ) -> None:
        self._loop = loop
        self.slots = slots
        self._processes = processes
        self._worker = worker
        self._data_dir = data_dir
        self._max_result = max_result
        self._tracebacks = tracebacks
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
        self.running: set[Attempt] = set()

    def start(self, attempt: Attempt) -> None:
        """Run it as soon as the hub turns; its slot is taken already."""
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
            self._abandon_thread(attempt)
        else:
            self._loop.run_callback(self._throw, attempt)

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
        self.running.add(attempt)
        spec = attempt.spec
        try:
            attempt.begin(self._loop, self._worker, self._in_hub if spec.options.run_in == "thread" else None)
            if spec.options.time_limit is not None and spec.options.run_in != "process":
                self._limit(attempt)
            CURRENT.set(attempt)
            try:
                result = self._ways[spec.options.run_in](attempt)
            finally:
                CURRENT.set(None)
                attempt.greenlet = None
                if attempt.insistence is not None:
                    attempt.insistence.close()
            if attempt.state is State.RUNNING:
                attempt.succeed(result, self._max_result)
        except BaseException as error:  # noqa: BLE001 - a task may raise anything, SystemExit and GreenletExit included
            self._ended_with(attempt, error)
        finally:
            self.running.discard(attempt)
            self.slots.give(spec)

    def _call(self, attempt: Attempt) -> Any:
        active = self._loop.activecnt
        try:
            result = attempt.spec.call(*attempt.args, **attempt.kwargs)
            return _drain(attempt, result) if attempt.spec.is_generator else result
        finally:
            if self._loop.activecnt != active:
                self._left_something = True

    def _ended_with(self, attempt: Attempt, error: BaseException) -> None:
        if attempt.state is not State.RUNNING:
            return
        if isinstance(error, TaskCancelled):
            attempt.fail(Event.CANCELLED, Cancelled("cancelled while it ran"))
        elif isinstance(error, TimeLimitExceeded):
            self._fail_or_retry(attempt, error, Event.TIMED_OUT, TimedOut(_over_limit(attempt.spec.options.time_limit)))
        elif isinstance(error, RetryElsewhere):
            self._fail_or_retry(attempt, error, Event.FAILED, error.error)
        elif isinstance(error, ProcessDied):
            self._process_died(attempt, error)
        elif isinstance(error, TimedOut):
            attempt.fail(Event.TIMED_OUT, error)
        elif isinstance(error, HandoffError):
            self._fail_or_retry(attempt, error, Event.FAILED, error)
        else:
            log.info("task-failed: %s raised", attempt.function, exc_info=error, extra={"task": attempt.id})
            self._fail_or_retry(attempt, error, Event.FAILED, self._failure(error))

    def _process_died(self, attempt: Attempt, died: ProcessDied) -> None:
        options = attempt.spec.options
        log.warning("process-died: %s: %s", attempt.function, died.message, extra={"task": attempt.id})
        if not options.retryable:
            attempt.fail(Event.INTERRUPTED, Interrupted(f"{died.message}; it may or may not have taken effect", **died.details))
        elif attempt.may_retry and attempt.attempt < options.attempts:
            attempt.retry(back_off(options.backoff, attempt.attempt), died)
        else:
            attempt.fail(Event.FAILED, died)

    def _failure(self, error: BaseException) -> Failed:
        failed = failure(error)
        if self._tracebacks:
            failed.details["traceback"] = speakable("".join(traceback.format_exception(error)))
        return failed

    def _fail_or_retry(self, attempt: Attempt, cause: BaseException, event: Event, error: HandoffError) -> None:
        after = retry_after(attempt.spec.options, cause, attempt.attempt) if attempt.may_retry else None
        if after is None:
            attempt.fail(event, error)
        else:
            attempt.retry(after, error)

    # Limits and interrupts.

    def _limit(self, attempt: Attempt) -> None:
        """The time of the task runs from here."""
        limit = attempt.spec.options.time_limit
        if limit is not None:
            attempt.deadline = time.monotonic() + limit
            self._insist(attempt, limit, TimeLimitExceeded(_over_limit(limit)))

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

    # Threads and processes: a greenlet here waits for them.

    def _call_in_thread(self, attempt: Attempt) -> Any:
        """Nothing can be raised in a thread: at its limit the task is reported, and its slot stays taken until the thread ends."""
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
        try:
            outcome[:] = True, self._call(attempt)
        except BaseException as error:  # noqa: BLE001 - raised again by the greenlet that waits
            outcome[:] = False, error
        finally:
            CURRENT.set(None)
            self._loop.run_callback_threadsafe(ended.set)

    def _in_hub(self, call: Callable[..., None], *args: Any) -> None:
        """From a task's thread: have it done in a greenlet of the hub's thread; blocks this thread until it is."""
        done = _allocate_lock()
        done.acquire()
        self._loop.run_callback_threadsafe(gevent.spawn, _then, done.release, call, *args)
        done.acquire()

    def _abandon_thread(self, attempt: Attempt) -> None:
        assert attempt.interrupt is not None
        self._ended_with(attempt, attempt.interrupt)

    def _call_in_process(self, attempt: Attempt) -> Any:
        with self._processes.process() as process:
            self._limit(attempt)
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


def _over_limit(limit: float | None) -> str:
    return "its time is up" if limit is None else f"over its time limit of {limit:g} s"
