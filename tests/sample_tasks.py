"""Tasks for tests: each leaves a line of effect behind, so that a test can count how often it really ran, and where.

A line is `id attempt pid note`, written at once to the end of the file `effects` in the data directory. A gate is a file: a task that is
given one goes on when the test has made it.
"""

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from workers import Retry, current, progress, task

EFFECTS = "effects"


def effect(note: object = "") -> None:
    """Leave a line."""
    context = current()
    line = f"{context.id} {context.attempt} {os.getpid()} {note}\n".encode()
    fd = os.open(Path(context.data_dir) / EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)


def wait_for(gate: str) -> None:
    """Block until the test has made this file."""
    while gate and not os.path.exists(gate):
        time.sleep(0.005)


@task
def mark(note: str = "", seconds: float = 0) -> int:
    """Leave a line, sleep a while, tell which process it was."""
    effect(note)
    if seconds:
        time.sleep(seconds)
    return os.getpid()


@task
def gated(gate: str, note: str = "") -> int:
    """Leave a line, then wait for the gate."""
    effect(note)
    wait_for(gate)
    return os.getpid()


@task(retryable=True, attempts=3, backoff=0.05)
def gated_again(gate: str, note: str = "") -> int:
    """As `gated`, run again when its process dies; tells which attempt it was."""
    effect(note)
    wait_for(gate)
    return current().attempt


@task(max_running=3)
def limited(gate: str) -> int:
    """As `gated`, three at once at most."""
    effect()
    wait_for(gate)
    return os.getpid()


@task(run_in="process")
def isolated(gate: str) -> int:
    """As `gated`, in a process of its own; tells whose child that is."""
    effect(os.getppid())
    wait_for(gate)
    return os.getppid()


@task
def spin(seconds: float) -> int:
    """Hold the hub of its process, as work for a CPU does where it does not belong."""
    effect()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return os.getpid()


@task
def flow(count: int, pause: float = 0, width: int = 0) -> Iterator[str]:
    """Yield so many values, each with its number and as wide as told."""
    effect()
    for number in range(count):
        yield f"{number}:{'x' * width}"
        if pause:
            time.sleep(pause)


@task(retryable=True, attempts=3, backoff=0.02)
def second_time(after: float | None = None) -> int:
    """Ask to be tried again, once."""
    effect()
    progress(current().attempt)
    if current().attempt == 1:
        raise Retry("not yet", after=after)
    return current().attempt


def say(text: str) -> Generator[str, None, str]:
    """Say a text in every way in which a task can say something."""
    progress(1, 2, text)
    yield text
    effect(text)
    return text


task(name="say_in_greenlet")(say)
task(name="say_in_thread", run_in="thread")(say)
task(name="say_in_process", run_in="process")(say)


@task
def report_then_wait(gate: str) -> None:
    """Say that half of it is done, then wait for the gate."""
    progress(1, 2, "half")
    wait_for(gate)
