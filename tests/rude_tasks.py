"""Tasks that leave something behind, hold the hub for ever, or fork: for `tests/test_leftovers.py`."""

import os
import subprocess
import time

import gevent

from workers import task


@task
def leave_a_timer(seconds: float) -> int:
    """A time-out that nobody cancels."""
    gevent.Timeout.start_new(seconds)
    return 1


@task
def nap(seconds: float) -> float:
    """Blocks in the plain way."""
    time.sleep(seconds)
    return seconds


@task
def spin() -> None:
    """Holds the hub, and has no limit of its own."""
    while True:
        pass


@task
def change_directory() -> str:
    """Takes the process somewhere else."""
    os.chdir("/")
    return os.getcwd()


@task(run_in="process")
def fork_and_leave(seconds: float) -> None:
    """Its child holds all that it had open, and outlives it."""
    if os.fork() == 0:
        time.sleep(seconds)
        os._exit(0)
    os._exit(3)


@task(run_in="process")
def nap_apart(seconds: float) -> float:
    """The same, in a process of its own."""
    time.sleep(seconds)
    return seconds


@task
def leave_a_program(seconds: float) -> int:
    """Starts one, and does not wait for it; its pid."""
    return subprocess.Popen(["sleep", str(seconds)]).pid


@task(retryable=True, attempts=9, backoff=0.01)
def die_often() -> None:
    """Ends its process, every time."""
    os._exit(7)
