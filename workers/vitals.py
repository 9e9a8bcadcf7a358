"""What is seen of a process of its own from outside, for the report of its end: the most memory that it took, and where it stood.

The stacks are written by faulthandler over there, in C, when the process crashes or gets `LAST_SIGNAL`; into a file that has no name, so
that nothing is left of it.
"""

import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent

from app.ends import OomKills, killed_by, peak
from workers.context import speakable

LOOK_EVERY = 0.2
"""Seconds between two looks at the memory of a process that runs a task."""

_MOST_WORDS = 4096
_HIGH_WATER = re.compile(rb"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class Vitals:
    """Of one process. `fd` is to be handed on to it; `watch` its `pid` while it runs a task."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("stacks", os.MFD_CLOEXEC)
        self._pid = 0
        self._peak = 0
        self._oom_kills = OomKills()
        self._timer: Any = None

    def watch(self, pid: int) -> None:
        """A task begins."""
        self._pid, self._peak = pid, 0
        self._oom_kills.again()
        self._timer = gevent.get_hub().loop.timer(LOOK_EVERY, LOOK_EVERY)
        self._timer.start(self._look)
        self._look()

    def rest(self) -> None:
        """It is over."""
        self._timer.close()

    def close(self) -> None:
        """The process has ended, and was reported."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def details(self, status: int) -> dict[str, Any]:
        """For the error, once the process has ended with this status (as `subprocess` has it)."""
        found: dict[str, Any] = {"killed_by": killed_by(status)}
        if self._peak:
            found["memory"] = peak(self._peak)
        return found | self.stack()

    def ran_out(self, status: int) -> bool:
        """Whether it was probably the kernel that killed it, for want of memory."""
        return status == -signal.SIGKILL and self._oom_kills.again()

    def stack(self) -> dict[str, str]:
        """Where it stood when it ended, where that is known."""
        words = os.pread(self.fd, _MOST_WORDS, 0) if self.fd >= 0 else b""
        return {"stack": speakable(words.decode(errors="replace"))} if words else {}

    def _look(self) -> None:
        with suppress(OSError):
            found = _HIGH_WATER.search(Path(f"/proc/{self._pid}/status").read_bytes())
            if found:
                self._peak = max(self._peak, int(found.group(1)))
