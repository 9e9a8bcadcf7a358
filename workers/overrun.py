"""The last resort against a task that is past its `hard_limit` and lets nothing else run: C code that holds the GIL, or a loop that
swallows whatever is raised in it. A timer of the kernel's ends the process; the file that is left says which task it was, and its stack.

The timer runs while such a task has the main thread: it is set when the hub switches to the task's greenlet, and stopped when it switches
away, so that nobody is taken for another. The switches are traced only while there are such tasks. Of threads nobody can say which one
holds the GIL: there the hub sets the timer anew at each beat, for the one whose limit comes first; where the hub does not beat either,
because of that one or because of another, the limit counts.

No Python code can run at that moment: the signal's handler is faulthandler's, in C, which writes the stacks and then lets the signal
end the process. A gateway of the same data directory reads the file, and so reports this task as `timed_out`. One on another machine sees
no more than that the process is gone: there it is `interrupted` or run again, as its neighbours are.
"""

import ctypes
import faulthandler
import json
import mmap
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import greenlet

from app.ends import LAST_SIGNAL, OVERRUN_HEAD
from workers.attempt import Attempt

GRACE = 1.0
"""Seconds past its hard limit that a task has, to end at the interrupt that it gets there."""

_MONOTONIC = 1


class _SigEvent(ctypes.Structure):
    """`struct sigevent`, for SIGEV_SIGNAL (0); see sigevent(7)."""

    _fields_ = (("value", ctypes.c_void_p), ("signo", ctypes.c_int), ("notify", ctypes.c_int), ("rest", ctypes.c_char * 48))


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: see timer_settime(2). All 0 stops the timer."""

    _fields_ = (("every_s", ctypes.c_long), ("every_ns", ctypes.c_long), ("in_s", ctypes.c_long), ("in_ns", ctypes.c_long))


class _KernelTimer:
    """One timer that sends `LAST_SIGNAL` to this process. A fork does not inherit it: there nothing happens."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._id = ctypes.c_void_p()
        if libc.timer_create(_MONOTONIC, ctypes.byref(_SigEvent(None, LAST_SIGNAL, 0)), ctypes.byref(self._id)) != 0:
            raise OSError(ctypes.get_errno(), "timer_create")
        self._set = libc.timer_settime
        self._set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._spec = _TimerSpec()
        self._at = ctypes.addressof(self._spec)

    def start(self, seconds: float) -> None:
        """Send it in so many seconds, unless told otherwise before."""
        whole = int(seconds)
        self._spec.in_s, self._spec.in_ns = whole, int((seconds - whole) * 1e9)
        self._set(self._id, 0, self._at, None)

    def stop(self) -> None:
        """Do not send it."""
        self._spec.in_s = self._spec.in_ns = 0
        self._set(self._id, 0, self._at, None)


class Overrun:
    """Of one process. `path` is the file that says who overran; it has a head of fixed size, and more only where somebody did."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "r+b", 0)
        self._file.truncate(OVERRUN_HEAD)
        self._file.seek(OVERRUN_HEAD)
        self._head = mmap.mmap(self._file.fileno(), OVERRUN_HEAD)
        faulthandler.register(LAST_SIGNAL, self._file, all_threads=True, chain=True)
        self._timer = _KernelTimer()
        self._greenlets: dict[Any, tuple[float, bytes]] = {}
        self._threads: dict[Attempt, tuple[float, bytes]] = {}
        self._running = False

    def watch(self, attempt: Attempt, hard_limit: float) -> None:
        """This task begins, in the greenlet that calls this; where it runs in a thread, that greenlet waits for it."""
        entry = (time.monotonic() + hard_limit, _name(attempt, hard_limit))
        if attempt.spec.options.run_in == "thread":
            self._threads[attempt] = entry
            self.turned()  # at once: the thread may hold everything before the next beat
            return
        if not self._greenlets:
            greenlet.settrace(self._switched)
        self._greenlets[attempt.greenlet] = entry
        self._arm(*entry)
        self._running = True

    def forget(self, attempt: Attempt, of: Any) -> None:
        """It has ended, or its end is brought about in another way; `of` is the greenlet that it was watched in."""
        if self._threads.pop(attempt, None) is None and self._greenlets.pop(of, None) is not None and not self._greenlets:
            greenlet.settrace(None)
        if not self._running or greenlet.getcurrent() is of:
            self._running = False
            self._disarm()

    def turned(self) -> None:
        """The main thread runs, and no task that is watched in it: a thread does not hold everything at this moment."""
        if self._threads and not self._running:
            self._arm(*min(self._threads.values()))

    def stop(self) -> None:
        """The process leaves; there is nothing to say."""
        self._timer.stop()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def _switched(self, event: str, greenlets: tuple[Any, Any]) -> None:
        """At every switch of a greenlet in the main thread, while there is one to watch."""
        entry = self._greenlets.get(greenlets[1])
        if entry is not None:
            self._arm(*entry)
            self._running = True
        elif self._running:
            self._running = False
            self._disarm()

    def _arm(self, limit_at: float, name: bytes) -> None:
        self._head[:] = name
        self._timer.start(max(limit_at - time.monotonic(), 0.0) + GRACE)

    def _disarm(self) -> None:
        if self._threads:
            self._arm(*min(self._threads.values()))
        else:
            self._timer.stop()


def _name(attempt: Attempt, hard_limit: float) -> bytes:
    return json.dumps([attempt.sink.journal, attempt.label, attempt.attempt, hard_limit]).encode().ljust(OVERRUN_HEAD)
