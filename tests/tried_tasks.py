"""Tasks that are tried out in a test's own process, and one that leaves a process behind on a server."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gevent
import pytest

from workers import current, progress, task
from workers.context import Interrupt


def counts(count: int) -> list[Any]:
    """Tell each step; tells where it ran."""
    for number in range(1, count + 1):
        progress(number, count)
    return [os.getpid(), threading.current_thread() is threading.main_thread(), current().attempt]


task(name="counts_in_greenlet")(counts)
task(name="counts_in_thread", run_in="thread")(counts)
task(name="counts_in_process", run_in="process")(counts)


@task(time_limit=0.1)
def spins() -> None:
    """Work for a CPU, without end."""
    while True:
        pass


@task(time_limit=0.1, hard_limit=30)
def waits_in_gevent() -> None:
    """Wait, without blocking anybody."""
    gevent.sleep(60)


@task(hard_limit=0.1)
def sleeps() -> None:
    """Block the thread."""
    time.sleep(60)


@task(time_limit=0.1, run_in="thread")
def sleeps_in_thread(seconds: float) -> None:
    """Block a thread, which nobody ends."""
    time.sleep(seconds)


@task(time_limit=0.1)
def stubborn() -> str:
    """Swallow the first interrupt."""
    with suppress(Interrupt):
        time.sleep(60)
    time.sleep(60)
    return "never"


@task(retry_on=ConnectionError, retryable=True, attempts=2)
def changes_its_arguments(items: list[int]) -> Iterator[int]:
    """Fail at each attempt, after a change."""
    items.append(0)
    yield len(items)
    raise ConnectionError("no bank")


@task
def fails_the_test(how: str) -> None:
    """Raise what is meant for the test."""
    if how == "fail":
        pytest.fail("said in a task")
    raise KeyboardInterrupt


@task
def gives_a_set() -> Any:
    """Return what JSON has no form for."""
    return {1}


@task
def leaves_a_process() -> int:
    """Start what nobody ends."""
    return subprocess.Popen(["sleep", "300"], start_new_session=True).pid
