"""The tasks of the fault rows: each leaves the line `id attempt pid` at the end of one file, written and synced before it goes on.

What a task does after its line, or to its own process, is what its row is about.
"""

import ctypes
import os
import resource
import signal
import time
from collections.abc import Iterator

from workers import Retry, current, progress, task

EFFECTS = "FAULT_EFFECTS"
"""The variable that names the file; it is not on the journal's disk, which may be full."""


def effect() -> None:
    """Take effect: one write to the end of the file, and on the disk before this returns."""
    context = current()
    fd = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{context.id} {context.attempt} {os.getpid()}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def once(seconds: float = 0) -> int:
    """Not retryable; takes effect, then its time."""
    effect()
    if seconds:
        time.sleep(seconds)
    return current().attempt


@task(retryable=True, attempts=40, backoff=0.05)
def again(seconds: float = 0) -> int:
    """The same, retryable, so often that no row runs out of attempts."""
    effect()
    if seconds:
        time.sleep(seconds)
    return current().attempt


@task(retryable=True, attempts=40, backoff=0.05)
def lingers(seconds: float) -> int:
    """Takes its time at the first attempt alone."""
    effect()
    if current().attempt == 1:
        time.sleep(seconds)
    return current().attempt


@task(retryable=True, attempts=40, backoff=0.05)
def asks(seconds: float = 0) -> int:
    """Asks to be tried again, once; what its process dies of comes on top."""
    effect()
    progress(1, 2)
    if seconds:
        time.sleep(seconds)
    if current().attempt == 1:
        raise Retry("not at the first attempt", after=0.02)
    return current().attempt


@task
def flows(count: int, seconds: float = 0) -> Iterator[int]:
    """Takes effect, then yields."""
    effect()
    for number in range(count):
        yield number
        time.sleep(seconds / count)


@task(run_in="process")
def apart(seconds: float = 0) -> int:
    """In a process of its own."""
    effect()
    time.sleep(seconds)
    return current().attempt


@task
def dies_before() -> None:
    """Its process is killed before it takes effect."""
    _die()


@task
def dies_after() -> None:
    """Its process is killed after it took effect, before it can reply."""
    effect()
    _die()


@task(retryable=True, attempts=40, backoff=0.05)
def dies_after_once() -> int:
    """The same, at the first attempt alone."""
    effect()
    if current().attempt == 1:
        _die()
    return current().attempt


@task(retryable=True, attempts=3, backoff=0.05)
def exits() -> None:
    """Ends its process without a word, every time."""
    effect()
    os._exit(7)


@task(retryable=True, attempts=3, backoff=0.05, run_in="process")
def segfaults() -> None:
    """Reads where nothing is, every time."""
    effect()
    ctypes.string_at(0)


@task(run_in="process")
def hungry(most: int) -> int:
    """Wants more memory than its process may have: `most` bytes of address space."""
    effect()
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return len(bytearray(2 * most))


def devour() -> int:
    """Takes memory until something gives: 1 GiB at most."""
    effect()
    taken = []
    for _ in range(256):
        taken.append(b"x" * (4 * 1024 * 1024))
    return len(taken)


task(name="devours")(devour)
task(name="devours_again", retryable=True, attempts=3, backoff=0.05)(devour)


def spin(seconds: float) -> int:
    """Hold the CPU."""
    effect()
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        count += 1
    return count


task(name="holds_the_cpu")(spin)
task(name="holds_the_cpu_apart", run_in="process")(spin)


@task
def large(size: int) -> str:
    """A result of so many bytes."""
    effect()
    return "x" * size


@task
def wide(size: int) -> str:
    """The same, for those whom the books do not know: without an effect."""
    return "x" * size
