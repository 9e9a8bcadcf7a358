"""Tasks that overrun their limits, each in every way in which a task can run, with a `time_limit`, with a `hard_limit`, and with none.

`NAME_LIMIT_WAY`, as in `spins_hard_thread`. And tasks that take their process with them, or make it large.
"""

# ruff: noqa: BLE001, S112 - to behave badly is what they are for

import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from tests.oddities import WAYS
from tests.sample_tasks import effect
from workers import current, task

SOFT, HARD = 0.4, 0.6
LIMITS: dict[str, dict[str, float]] = {"soft": {"time_limit": SOFT}, "hard": {"hard_limit": HARD}, "none": {}}
_kept: list[bytearray] = []


def with_every_limit(**options: Any) -> Callable[[Any], Any]:
    """Register a function for each limit and each way."""

    def register(function: Any) -> Any:
        for limit, values in LIMITS.items():
            for way in WAYS:
                task(name=f"{function.__name__}_{limit}_{way}", run_in=way, **values, **options)(function)
        return function

    return register


@with_every_limit()
def waits(seconds: float = 600) -> str:
    """Blocks in the plain way, and lets itself be interrupted; in a thread it looks now and then whether it should end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.02)
        current().check()
    return "waited"


@with_every_limit()
def sleeps(seconds: float) -> str:
    """As `waits`, without a look."""
    time.sleep(seconds)
    return "slept"


@with_every_limit()
def spins(seconds: float = 600) -> str:
    """Holds the CPU, in Python."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return "span"


@with_every_limit()
def shrugs(seconds: float = 600) -> str:
    """Waits, and swallows whatever is raised."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            time.sleep(0.02)
        except BaseException:
            continue
    return "went on"


@with_every_limit()
def clings(seconds: float = 600) -> str:
    """Holds the CPU, and swallows whatever is raised, also what is raised while it does that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            _cling(until)
        except BaseException:
            continue
    return "went on"


def _cling(until: float) -> None:
    while time.monotonic() < until:
        try:
            while time.monotonic() < until:
                pass
        except BaseException:
            continue


@with_every_limit()
def holds(seconds: float = 600) -> str:
    """C code that holds the GIL."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    time.sleep(0.01)
    current().check()
    return "let go"


@with_every_limit(retryable=True, attempts=2, backoff=0.05)
def poisons(size: int = 0) -> None:
    """Takes so many bytes, and its process with it, each time."""
    effect()
    _kept.append(bytearray(size))
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def grows(size: int) -> int:
    """Keeps so many bytes for ever."""
    effect()
    _kept.append(bytearray(b"x" * size))
    time.sleep(0.1)
    return os.getpid()


@task
def neighbour(seconds: float) -> int:
    """Sleeps, and tells which process it was."""
    effect()
    time.sleep(seconds)
    return os.getpid()


@task(retryable=True, backoff=0.05)
def neighbour_again(seconds: float) -> int:
    """As `neighbour`, run again when its process dies; tells which attempt it was."""
    effect()
    time.sleep(seconds)
    return current().attempt
