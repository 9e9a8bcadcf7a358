"""Finds what blocks the hub of a worker, names it, and ends it where it is over its limit. Works without a master.

A native thread watches a beat that the hub makes. When the hub has not turned for `BLOCKED_AFTER`, it signals the main thread: the Python
handler runs in the very greenlet that blocks, so it knows the task, has the stack, and can raise there. C code that holds the GIL runs no
handler: faulthandler, armed again by the beat, then writes the stack to a file and ends the process; a Python loop without a limit of
its own ends so too. What blocks stands in that file from the start, for whoever has to report that this process is gone.
"""

import faulthandler
import logging
import os
import signal
import time
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

from gevent.monkey import get_original

from app.messages import State
from workers.attempt import Attempt
from workers.context import CURRENT, TimeLimitExceeded
from workers.endings import over_hard_limit, over_time_limit
from workers.overrun import Overrun

log = logging.getLogger(__name__)

BEAT_EVERY = 0.05
BLOCKED_AFTER = 0.25
"""Seconds without a turn of the hub after which whatever holds it is named."""

_REARM_EVERY = 1.0
"""Seconds between two beats that arm it again, at most; each makes a thread. By so much a process may be ended too early."""

_ROOT = Path(__file__).resolve().parent.parent
_HOUSE = (f"{_ROOT / 'app'}/", f"{_ROOT / 'workers'}/")
_TASKS = f"{_ROOT / 'workers' / 'tasks'}/"

_start_native_thread = get_original("_thread", "start_new_thread")
_native_thread_id = get_original("_thread", "get_ident")
_native_sleep = get_original("time", "sleep")


class Watchdog:
    """Watches the hub of this process. `hang_limit`: seconds for which it may be held before the process is ended."""

    def __init__(self, loop: Any, hang_limit: float, stack_file: Path, overrun: Overrun) -> None:
        self._overrun = overrun
        self._hang_limit = hang_limit
        self._stack_file = stack_file
        self._stacks = os.fdopen(os.open(stack_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w")
        self._main = 0
        self._beat_at = time.monotonic()
        self._armed_at = 0.0
        self._named = False
        self._timer = loop.timer(BEAT_EVERY, BEAT_EVERY)
        self._watching = False

    def start(self) -> None:
        """Begin to watch the thread that calls this: the main one."""
        self._main = _native_thread_id()
        signal.signal(signal.SIGUSR2, self._blocked)
        self._beat()
        self._timer.start(self._beat)
        self._watching = True
        _start_native_thread(self._watch, ())

    def stop(self) -> None:
        """Stop watching; a stack file that says nothing is removed."""
        self._watching = False
        self._timer.stop()
        faulthandler.cancel_dump_traceback_later()
        with suppress(FileNotFoundError):  # the gateway may have read it already
            if self._stack_file.stat().st_size == 0:
                self._stack_file.unlink()

    def _beat(self) -> None:
        """In the hub."""
        self._beat_at = time.monotonic()
        self._overrun.turned()
        if self._named:
            self._named = False
            self._write_down("")
        if self._beat_at - self._armed_at > min(_REARM_EVERY, self._hang_limit / 4):
            self._arm()

    def _arm(self) -> None:
        self._armed_at = time.monotonic()
        if self._hang_limit:
            faulthandler.dump_traceback_later(self._hang_limit, exit=True, file=self._stacks)

    def _watch(self) -> None:
        """In a native thread."""
        while self._watching:
            _native_sleep(BEAT_EVERY)
            if time.monotonic() - self._beat_at > BLOCKED_AFTER:
                signal.pthread_kill(self._main, signal.SIGUSR2)
                _native_sleep(BLOCKED_AFTER - BEAT_EVERY)

    def _write_down(self, stack: str) -> None:
        self._stacks.seek(0)
        self._stacks.truncate()
        self._stacks.write(stack)
        self._stacks.flush()

    def _blocked(self, number: int, frame: types.FrameType | None) -> None:
        """The signal's handler: in the main thread, in the greenlet that holds the hub, between two steps of its Python code."""
        now = time.monotonic()
        held = now - self._beat_at
        if held < BLOCKED_AFTER:
            return
        self._overrun.turned()
        context = CURRENT.get()
        attempt = context if isinstance(context, Attempt) and context.state is State.RUNNING else None
        if not self._named:
            self._named = True
            stack = "".join(traceback.format_stack(frame, limit=20))
            self._write_down(stack)
            _name(attempt, held, stack)
        if attempt is not None and attempt.deadline and now > attempt.deadline:
            attempt.interrupt = attempt.interrupt or TimeLimitExceeded(f"{_limit(attempt)}, and it held the hub")
            if in_the_task(frame):
                raise attempt.interrupt  # else `progress` raises it, or the next signal


def _name(attempt: Attempt | None, held: float, stack: str) -> None:
    if attempt is None:
        log.warning("hub-blocked: something other than a task has held it for %.2f s\n%s", held, stack)
        return
    log.warning(
        'hub-blocked: %s has held the hub for %.2f s, and every other task with it; give it @task(run_in="thread") or "process"\n%s',
        attempt.function,
        held,
        stack,
        extra={"task": attempt.id},
    )


def _limit(attempt: Attempt) -> str:
    options = attempt.spec.options
    return over_hard_limit(options.hard_limit or 0.0) if options.time_limit is None else over_time_limit(options.time_limit)


def in_the_task(frame: types.FrameType | None) -> bool:
    """Whether no code of ours is between the task and where it is: an exception there would leave us in a half-done step."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_HOUSE) and not name.startswith(_TASKS):
            return frame.f_code.co_name in ("_call", "_drain")
        frame = frame.f_back
    return False
