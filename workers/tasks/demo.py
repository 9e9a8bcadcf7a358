"""Tasks to try things out with: each shows one way in which a task can behave."""

import time
from collections.abc import Iterator
from typing import Any

from workers.registry import task

LARGEST_SIEVE = 100_000_000
"""`primes` takes a byte for each number."""


@task
def echo(**anything: Any) -> dict[str, Any]:
    """Give the arguments back."""
    return anything


@task
def sleep(seconds: float) -> float:
    """Do nothing for that many seconds, as code that waits for a network does. Gives the seconds back."""
    time.sleep(max(0.0, seconds))
    return seconds


@task
def countdown(start: int, interval: float = 0.1) -> Iterator[int]:
    """Say each number from `start` down to 0, `interval` seconds apart."""
    for number in range(start, -1, -1):
        yield number
        if number:
            time.sleep(max(0.0, interval))


@task(run_in="process", retryable=True)
def primes(below: int) -> int:
    """Count the primes below a number: work for a CPU, so it runs in a process of its own."""
    if below > LARGEST_SIEVE:
        raise ValueError(f"below must be at most {LARGEST_SIEVE}")
    if below < 3:
        return 0
    sieve = bytearray([1]) * below
    sieve[:2] = b"\0\0"
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
    return sieve.count(1)


@task
def fail(message: str = "told to fail") -> None:
    """Raise an exception with this message."""
    raise RuntimeError(message)
