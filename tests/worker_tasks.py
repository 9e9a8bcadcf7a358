"""Tasks that behave badly, or end in some odd way, each in a greenlet, in a thread and in a process of its own.

`NAME_greenlet`, `NAME_thread` and `NAME_process` are the same function.
"""

# ruff: noqa: BLE001, S112 - to behave badly is what they are for

import ctypes
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.errors import Failed
from tests.oddities import ODD_ERRORS, ODD_RESULTS, WAYS, deep
from workers import Retry, current, progress, task
from workers.context import TaskCancelled, TimeLimitExceeded


def in_every_way(**options: Any) -> Callable[[Any], Any]:
    """Register a function once for each way in which it can be run."""

    def register(function: Any) -> Any:
        for way in WAYS:
            task(name=f"{function.__name__}_{way}", run_in=way, **options)(function)
        return function

    return register


@in_every_way()
def odd_error(kind: str) -> None:
    """Raise it."""
    raise ODD_ERRORS[kind]()


@in_every_way()
def odd_result(kind: str) -> Any:
    """Return it."""
    return ODD_RESULTS[kind]()


@in_every_way()
def nested_result(levels: int) -> Any:
    """A result nested so deep."""
    return deep(levels)


@in_every_way()
def large(size: int) -> str:
    """A result of so many bytes, quotes not counted."""
    return "x" * size


@in_every_way()
def identity() -> list[Any]:
    """What it is told of itself, and whether it runs under gevent."""
    return [current().id, current().attempt, current().function, os.getpid(), hasattr(time.sleep, "__wrapped__") or time.sleep.__module__]


@in_every_way()
def gives(values: list[Any], result: Any = None, pause: float = 0) -> Iterator[Any]:
    """Yield the values, then return the result."""
    for value in values:
        yield value
        if pause:
            time.sleep(pause)
    return result


@in_every_way()
def gives_odd() -> Iterator[Any]:
    """Yield something that is no JSON."""
    yield 1
    yield object()


@in_every_way()
def tells(count: int, seconds: float = 0) -> int:
    """Report progress so many times within so many seconds."""
    for number in range(1, count + 1):
        progress(number, count, f"step {number}")
        if seconds:
            time.sleep(seconds / count)
    return count


@in_every_way()
def tells_odd(done: Any, note: Any = None) -> str:
    """Report a progress that is none, and say what that raised."""
    try:
        progress(float(done) if isinstance(done, str) else done, 10, "file \udcff" if note == "surrogate" else note)
    except Exception as error:
        return type(error).__name__
    return "fine"


@in_every_way()
def naps(seconds: float) -> float:
    """Sleep in one piece."""
    time.sleep(seconds)
    return seconds


@in_every_way(time_limit=0.3)
def naps_limited(seconds: float) -> float:
    """As `naps`, not for long."""
    time.sleep(seconds)
    return seconds


@in_every_way(time_limit=0.3)
def tidies_up(seconds: float) -> str:
    """Clean up when its time is up, and say how it ended."""
    try:
        time.sleep(seconds)
    finally:
        (Path(current().data_dir) / f"tidy-{current().id}").touch()
    return "in time"


@in_every_way(time_limit=0.3)
def swallows(seconds: float) -> int:
    """Go on for so long whatever is raised; tell how often that was."""
    until, swallowed = time.monotonic() + seconds, 0
    while (left := until - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except (TimeLimitExceeded, TaskCancelled):
            swallowed += 1
    return swallowed


@in_every_way()
def gives_in(after: int) -> str:
    """Let itself be cancelled when it was told so often."""
    for _ in range(after - 1):
        try:
            time.sleep(600)
        except TaskCancelled:
            continue
    time.sleep(600)
    return "never cancelled"


@in_every_way(time_limit=0.3)
def catches_exceptions(seconds: float) -> str:
    """Go on after any `Exception`, as much old code does."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except Exception:
            continue
    return "went on"


@in_every_way()
def asks_whether_cancelled(seconds: float) -> str:
    """Look now and then whether it should end."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            time.sleep(0.01)
            current().check()
    finally:
        (Path(current().data_dir) / f"asked-{current().id}").write_text(str(current().cancelled))
    return "never cancelled"


@task(run_in="process", retryable=True, attempts=2, backoff=0.01)
def dies_retryable(how: str) -> None:
    """As `dies`, may be run again."""
    dies(how)


@task(run_in="process")
def dies(how: str) -> None:
    """End the process that it runs in."""
    if how == "exit":
        os._exit(7)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "silence":
        os.closerange(3, 100)
        time.sleep(600)


@task(run_in="process")
def where() -> int:
    """The process that it runs in."""
    return os.getpid()


@task(run_in="process", time_limit=0.2)
def holds_out(path: str) -> None:
    """Spin whatever is raised, and leave word where it can be found."""
    Path(path).write_text(str(os.getpid()))
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue


@task(run_in="process", hard_limit=0.5)
def overruns(path: str) -> None:
    """As `holds_out`, with a hard limit alone."""
    holds_out(path)


@in_every_way(retryable=True, retry_on=(ConnectionError, TimeoutError), attempts=3, backoff=0.01, time_limit=0.3)
def tries(kind: str, after: Any = None) -> int:
    """Fail so that it is, or is not, tried again."""
    if kind == "named":
        raise ConnectionResetError("gone")
    if kind == "other":
        raise KeyError("other")
    if kind == "asks":
        raise Retry("later", after=float(after) if isinstance(after, str) else after)
    if kind == "late":
        time.sleep(600)
    return current().attempt


class Later(Failed, Retry):
    """One of our errors, with details, that asks to be tried again."""


@in_every_way(attempts=2, backoff=0.25)
def asks(detail: int | None) -> None:
    """Not retryable, and asks to be tried again all the same."""
    raise Retry("nothing happened yet") if detail is None else Later("nothing happened yet", detail=detail)


@task(max_running=2)
def two_at_once(seconds: float) -> float:
    """Two of these at once, not more."""
    time.sleep(seconds)
    return seconds


@task
def spins(seconds: float) -> float:
    """Hold the hub, in Python."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return seconds


@task(time_limit=0.5)
def spins_limited(seconds: float) -> float:
    """As `spins`, not for long."""
    return spins(seconds)


@task(time_limit=0.5)
def tells_without_end() -> None:
    """Hold the hub with nothing but progress."""
    for number in itertools.count():
        progress(number)


@task(run_in="thread")
def spins_in_thread(seconds: float) -> float:
    """As `spins`, where it does no harm."""
    return spins(seconds)


@task
def hangs(seconds: int) -> int:
    """Hold the GIL, in C: nothing of Python runs meanwhile."""
    return int(ctypes.PyDLL(None).sleep(seconds))
