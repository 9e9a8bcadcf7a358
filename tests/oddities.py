"""What a task may raise, or return, that nobody would expect; and the ways in which it can be run."""

import sys
from collections.abc import Callable
from typing import Any

import greenlet

from app.errors import Failed
from workers.context import TaskCancelled, TimeLimitExceeded

WAYS = ("greenlet", "thread", "process")


class Unspeakable(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")


ODD_ERRORS: dict[str, Callable[[], BaseException]] = {
    "exit": lambda: SystemExit(3),
    "greenlet exit": greenlet.GreenletExit,
    "keyboard interrupt": KeyboardInterrupt,
    "stop iteration": lambda: StopIteration("early"),
    "generator exit": GeneratorExit,
    "assertion": AssertionError,
    "memory": MemoryError,
    "unspeakable": Unspeakable,
    "lone surrogate": lambda: ValueError("file \udcff not found"),
    "long": lambda: ValueError("x" * 10_000_000),
    "one of ours": lambda: Failed("as told", sent=3),
    "one of ours with what JSON cannot say": lambda: Failed("as told", what=object()),
    "a time-out of its own": lambda: TimeLimitExceeded("by itself"),
    "a cancel of its own": lambda: TaskCancelled("by itself"),
}

ODD_RESULTS: dict[str, Callable[[], Any]] = {
    "nan": lambda: float("nan"),
    "infinity within": lambda: {"a": [float("inf")]},
    "object": object,
    "bytes": lambda: b"bytes",
    "set": lambda: {1, 2},
    "lone surrogate": lambda: "\ud800",
    "a key that is no text": lambda: {(1, 2): 3},
    "too many digits": lambda: 10 ** sys.get_int_max_str_digits(),
    "too deep": lambda: deep(32),
    "far too deep": lambda: deep(100_000),
    "itself": lambda: cycle(),
}


def cycle() -> list[Any]:
    """A list that is in itself."""
    around: list[Any] = []
    around.append(around)
    return around


def deep(levels: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value
