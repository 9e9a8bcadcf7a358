"""When a worker process leaves of its own accord: it has run as many tasks as it may, it has grown too large, or a task has tainted it.

It decides; how a process leaves (nothing new is taken, what runs ends, what was said is acknowledged) is in `workers/server.py`, and the
master starts another in its place.
"""

import logging
import random
from collections.abc import Callable
from typing import Any

from app.errors import SettingsError
from app.heartbeat import memory

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two looks at the memory."""

_MIB = 1024 * 1024


class Retirement:
    """Of one worker process. `leave` is called once, with whether what runs is waited for without a limit."""

    def __init__(self, loop: Any, max_tasks: int, max_memory: int, leave: Callable[[bool], None]) -> None:
        self._leave = leave
        self._max_memory = max_memory
        self._left = spread(max_tasks)
        self._looking = loop.timer(LOOK_EVERY, LOOK_EVERY)
        self.counts = max_tasks > 0
        """Whether it wants to be told of each task that begins."""

    def start(self) -> None:
        """Begin to look. Raises `SettingsError` where the process is too large before it has run anything."""
        if not self._max_memory:
            return
        if memory() > self._max_memory:
            size = f"{memory() / _MIB:.0f} MiB"
            raise SettingsError(f"--max-memory: a worker takes {size} before it has run a task; give it more, or 0 for no limit")
        self._looking.start(self._look)

    def count(self) -> None:
        """One more task begins."""
        self._left -= 1
        if self._left == 0:
            log.info("worker-retires: it has begun as many tasks as --max-tasks allows")
            self._leave(True)

    def taint(self, reason: str) -> None:
        """Something is left in this process that only its end will end."""
        self._looking.stop()
        log.warning("worker-tainted: %s; this process takes nothing more and leaves", reason)
        self._leave(False)

    def _look(self) -> None:
        used = memory()
        if used > self._max_memory:
            self._looking.stop()
            log.info("worker-retires: it takes %.0f MiB, and --max-memory allows %.0f", used / _MIB, self._max_memory / _MIB)
            self._leave(True)


def spread(most: int) -> int:
    """At most so many, and up to a tenth fewer: siblings that began together do not leave together."""
    return most - random.randrange(most // 10 + 1)
