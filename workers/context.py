"""What a running task can say and ask: `current()`, `progress()`, whether it was cancelled, and how it asks to be tried again.

The same in a greenlet, a thread and a process of its own: whoever runs the task sets a `TaskContext` of its kind around it. Nothing here
knows of sockets or slots.
"""

import math
from contextvars import ContextVar
from typing import Any

from app.labels import id_of


class Interrupt(BaseException):
    """Raised inside a task from outside. A `BaseException`, so that a task's own `except Exception` lets it pass."""


class TaskCancelled(Interrupt):
    """Somebody cancelled the task."""


class TimeLimitExceeded(Interrupt):
    """The task is over its `time_limit`."""


class Retry(Exception):
    """Raise it in a task to be tried again later, where attempts are left; `after` in seconds, else the task's back-off.

    A task that is not `retryable` may raise it too: it says that nothing took effect, which is not known of one whose process died.
    """

    def __init__(self, message: str = "the task asked to be tried again", *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class TaskContext:
    """One attempt of one task, as the task sees it."""

    __slots__ = ("attempt", "data_dir", "function", "interrupt", "label")

    def __init__(self, label: str, function: str, attempt: int, data_dir: str) -> None:
        self.label = label
        self.function = function
        self.attempt = attempt
        self.data_dir = data_dir
        self.interrupt: Interrupt | None = None

    @property
    def id(self) -> str:
        """The task's id, as whoever submitted it has given it."""
        return id_of(self.label)

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled the task; of use in a thread, where nothing can be raised from outside."""
        return isinstance(self.interrupt, TaskCancelled)

    def check(self) -> None:
        """Raise `TaskCancelled` or `TimeLimitExceeded` where the task should end; of use in a long loop in a thread."""
        if self.interrupt is not None:
            raise self.interrupt

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Tell whoever watches how far the task is; coalesced to ten a second, the newest kept."""
        raise NotImplementedError


CURRENT: ContextVar[TaskContext | None] = ContextVar("handoff_task", default=None)
"""The task that runs here; set by whoever runs it."""


def current() -> TaskContext:
    """The task that this code runs in; raises `LookupError` outside one."""
    context = CURRENT.get()
    if context is None:
        raise LookupError("no task runs here")
    return context


def progress(done: float, total: float | None = None, note: str | None = None) -> None:
    """As `current().progress(...)`; outside a task nothing happens, so that a function can also be called directly."""
    context = CURRENT.get()
    if context is not None:
        context.progress(done, total, note)


def progress_fields(done: float, total: float | None, note: str | None) -> dict[str, Any]:
    """What a `progress` event carries beside its head. Raises `TypeError` or `ValueError` for numbers that are none."""
    fields: dict[str, Any] = {"done": _number(done)}
    if total is not None:
        fields["total"] = _number(total)
    if note is not None:
        fields["note"] = speakable(str(note))
    return fields


def speakable(text: str) -> str:
    """The text without what UTF-8 has no form for (the names of some files, say)."""
    return text.encode("utf-8", "replace").decode()


def _number(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"progress wants numbers, not {value}")
    return value if type(value) is int or type(value) is float else float(value)
