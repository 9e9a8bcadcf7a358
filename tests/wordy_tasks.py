"""Tasks that are given a secret and come to a bad end, each in its own way. What they say of it themselves is for whoever sent them."""

import ctypes
import os
import time
from collections.abc import Iterator

from workers import Retry, progress, task


class Wordy(Exception):
    """Says all that it knows."""


@task
def raises(text: str) -> None:
    """Raises with its argument in the words, and as the cause."""
    try:
        dict[str, int]()[text]
    except KeyError as error:
        raise Wordy(f"cannot do {text}") from error


@task(run_in="thread")
def raises_in_thread(text: str) -> None:
    """The same in a thread."""
    raises.__wrapped__(text) if hasattr(raises, "__wrapped__") else raises(text)


@task(run_in="process")
def raises_in_process(text: str) -> None:
    """The same in a process."""
    raise Wordy(f"cannot do {text}")


@task(run_in="process")
def crashes_in_process(text: str) -> None:
    """Falls over, with its argument on the stack."""
    ctypes.string_at(len(text) - len(text))


@task
def crashes(text: str) -> None:
    """Takes its worker along."""
    os._exit(7)


@task(retryable=True, attempts=2, backoff=0.01)
def tries_again(text: str) -> None:
    """Never succeeds."""
    raise Retry(f"not yet: {text}")


@task(time_limit=0.3)
def spins(text: str) -> None:
    """Holds the hub, so that its stack is logged, until it is stopped."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        pass


@task
def talks(text: str) -> Iterator[str]:
    """Says it in every way there is."""
    progress(1, 2, text)
    yield text
    progress(2, 2, text)


@task
def returns(text: str) -> dict[str, str]:
    """Gives it back."""
    return {text: text}


@task
def returns_nonsense(text: str) -> object:
    """Gives back what is no JSON, and has it in its name."""
    return type(text, (), {"__repr__": lambda self: text})()


@task
def raises_oddly(name: str) -> None:
    """Raises an error that is called as it is told."""
    raise type(name, (Exception,), {})(name)
