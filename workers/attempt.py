"""One attempt of one task, as the worker holds it: its numbering, its coalesced progress, and the one final event that it ends with.

How it is run (greenlet, thread, process) is the executor's; where its events go is the sink's.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from app import wire
from app.errors import Failed, HandoffError, TooLarge
from app.messages import FINAL_STATE, MAX_DELAY, Event, State, event_body_line, event_line
from workers.context import Retry, TaskContext, TimeLimitExceeded, progress_fields, speakable
from workers.registry import Function, Options

log = logging.getLogger(__name__)

PROGRESS_EVERY = 0.1
"""Seconds between two progress events of one attempt, at least; a thousandth of its age once that is more, so that a day fits in the
log."""

MAX_EVENTS = 10_000
MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_MESSAGE = 2000
"""Characters of an exception's text that are told."""

_IN_A_MESSAGE = wire.MAX_DEPTH - 1


class Sink(Protocol):
    """Where the events of an attempt go. `journal` names the gateway that sent it, where one did."""

    @property
    def journal(self) -> str: ...

    def event(self, attempt: "Attempt", line: bytes) -> None:
        """An event that is not the last; `line` has no ending."""

    def final(self, attempt: "Attempt", event: Event, key: bytes, value: bytes) -> None:
        """The last event; `value` is the JSON of the result (key `result`) or of the error (key `error`)."""

    def flush(self) -> None:
        """Let what was said leave now, not at the end of the turn."""

    def wait(self) -> None:
        """Block this greenlet while the receiver is far behind."""


class Attempt(TaskContext):
    """Also the task's own context. `state` goes from QUEUED over RUNNING to a final one; `seq` is the number of the last event.

    `raw`: the arguments as they came, where a process of its own will bind them again. `lines`: its last events, as many as the gateway
    that sent it has not acknowledged; their numbers end at `seq`.
    """

    __slots__ = (
        "_bytes",
        "_in_hub",
        "_loop",
        "_pending",
        "_progress_at",
        "_timer",
        "_told",
        "_told_due",
        "args",
        "deadline",
        "final_only",
        "greenlet",
        "insistence",
        "kwargs",
        "lines",
        "may_retry",
        "raw",
        "seq",
        "sink",
        "spec",
        "started_at",
        "state",
    )

    def __init__(self, spec: Function, label: str, args: tuple[Any, ...], kwargs: dict[str, Any], sink: Sink, *, attempt: int = 1) -> None:
        super().__init__(label, spec.name, attempt, "")
        self.spec = spec
        self.args = args
        self.kwargs = kwargs
        self.sink = sink
        self.final_only = False
        self.may_retry = False
        self.raw: Any = None
        self.lines: list[bytes] = []
        self.seq = 0
        self.state = State.QUEUED
        self.greenlet: Any = None
        self.insistence: Any = None
        self.deadline = 0.0
        self.started_at = 0.0
        self._loop: Any = None
        self._in_hub: Callable[..., None] | None = None
        self._told: dict[str, Any] | None = None
        self._told_due = False
        self._pending: dict[str, Any] | None = None
        self._progress_at = 0.0
        self._timer: Any = None
        self._bytes = 0

    def begin(self, loop: Any, worker: str, in_hub: Callable[..., None] | None = None) -> None:
        """Say that it starts. `started` leaves at once: a function that blocks the hub would hold it back. `in_hub`: how a task in a
        thread has something done in a greenlet of the hub's thread, and waits for it."""
        self._loop = loop
        self.state = State.RUNNING
        self.started_at = time.monotonic()
        self._in_hub = in_hub
        if not self.final_only:
            self._say(Event.STARTED, b'"worker":' + wire.encode(worker))
            self.sink.flush()

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """As `TaskContext.progress`; also where a thread or a process of its own says it. Raises where the task should end."""
        self.check()
        fields = progress_fields(done, total, note)
        if self._in_hub is None:
            self.note_progress(fields)
            return
        if not self._progress_at:  # the first is told in any case
            self._progress_at = -1.0
            self._loop.run_callback_threadsafe(self.note_progress, fields)
            return
        self._told = fields  # before the look at `_told_due`, and taken by the hub after that was reset: so none is overlooked
        if not self._told_due:
            self._told_due = True
            self._loop.run_callback_threadsafe(self._take_told)

    def _take_told(self) -> None:
        self._told_due = False
        told, self._told = self._told, None
        if told is not None:
            self.note_progress(told)

    def note_progress(self, fields: dict[str, Any]) -> None:
        """Send it now, or keep it until `PROGRESS_EVERY` has passed since the last; in the hub's thread."""
        if self.final_only or self.state is not State.RUNNING:
            return
        now = time.monotonic()
        wait = self._progress_at + max(PROGRESS_EVERY, (now - self.started_at) / 1000) - now
        if wait <= 0 and self._timer is None:
            self._say_progress(fields)
            return
        self._pending = fields
        if self._timer is None:
            self._timer = self._loop.timer(max(wait, 0.0))
            self._timer.start(self._say_pending)

    def output(self, value: Any) -> None:
        """One value that a generator task yields; blocks where the receiver is far behind. Raises `TooLarge` past what is kept of a
        task."""
        self.check()
        if self.final_only:
            return
        body = b'"value":' + encode_value(self.function, "yielded", value)
        if self.seq >= MAX_EVENTS or self._bytes + len(body) > MAX_EVENT_BYTES:
            raise TooLarge(f"what is kept of one task ({MAX_EVENTS} events)", MAX_EVENT_BYTES)
        if self._in_hub is None:
            self._say_output(body)
        else:
            self._in_hub(self._say_output, body)

    def _say_output(self, body: bytes) -> None:
        if self.state is State.RUNNING:
            self._say_pending()
            self._say(Event.OUTPUT, body)
            self.sink.wait()

    def succeed(self, result: Any, limit: int) -> None:
        """End with `succeeded`, or `failed` where the result is no JSON or larger than `limit` bytes."""
        try:
            value = encode_value(self.function, "returned", result)
        except Failed as error:
            self.fail(Event.FAILED, error)
            return
        if len(value) > limit:
            self.fail(Event.FAILED, TooLarge("the result", limit))
            return
        self._end(Event.SUCCEEDED, b"result", value)

    def fail(self, event: Event, error: HandoffError) -> None:
        """End with another final event than `succeeded`."""
        self._end(event, b"error", wire.encode(error_object(error)))

    def retry(self, after: float, error: HandoffError) -> None:
        """End this attempt with `retrying`: the gateway will send the task again after that many seconds."""
        self._finish(State.RETRYING)
        self.seq += 1
        self.sink.event(
            self, event_line(self.label, Event.RETRYING, self.seq, self.attempt, after=round(after, 3), error=error_object(error))
        )

    def _end(self, event: Event, key: bytes, value: bytes) -> None:
        self._finish(FINAL_STATE[event])
        self.seq += 1
        self.sink.final(self, event, key, value)

    def _finish(self, state: State) -> None:
        if self._timer is not None or self._pending is not None:
            self._say_pending()
        self.state = state

    def _say_pending(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        pending, self._pending = self._pending, None
        if pending is not None:
            self._say_progress(pending)

    def _say_progress(self, fields: dict[str, Any]) -> None:
        self._progress_at = time.monotonic()
        self._say(Event.PROGRESS, wire.encode(fields)[1:-1])

    def _say(self, event: Event, body: bytes) -> None:
        """Send an event, unless the log of this task is full; `body` is what follows the head."""
        if self.seq >= MAX_EVENTS or self._bytes + len(body) > MAX_EVENT_BYTES:
            return
        self._bytes += len(body)
        self.seq += 1
        self.sink.event(self, event_body_line(self.label, event, self.seq, self.attempt, body))


def encode_value(function: str, done: str, value: Any) -> bytes:
    """What a function returned or yielded, as the JSON that stands in an event; raises `Failed` where it has none."""
    try:
        return wire.encode(value, _IN_A_MESSAGE)
    except (TypeError, ValueError) as error:
        raise Failed(f"{function} {done} what JSON has no form for: {error}"[:MAX_MESSAGE]) from None


def failure(error: BaseException) -> Failed:
    """What a function raised, in words, whatever that was."""
    kind = type(error).__name__
    try:
        text = f"{kind}: {error}"
    except Exception as unspeakable:  # noqa: BLE001 - its own code is asked for its text
        text = f"{kind}, whose text cannot be had: that raised {type(unspeakable).__name__}"
    return Failed(speakable(text[:MAX_MESSAGE]))


def error_object(error: HandoffError) -> dict[str, Any]:
    """The error as it stands in an event. A task may raise our errors too, with details that JSON has no form for, or too many: then they
    are left out."""
    fields = error.as_wire()
    try:
        if len(wire.encode(fields, _IN_A_MESSAGE)) <= MAX_ERROR_BYTES:
            return fields
    except (TypeError, ValueError):
        log.warning("error-details: those of %s cannot be told", type(error).__name__)
    return {"code": str(error.code), "message": speakable(str(error.message)[:MAX_MESSAGE])}


def retry_after(options: Options, cause: BaseException, attempt: int) -> float | None:
    """Seconds until a failed attempt is tried again; None where it is not: no attempts left, or its options do not name the cause. A task
    that asks for it itself knows that nothing took effect: it need not be `retryable`."""
    if not (options.retryable or isinstance(cause, Retry)) or attempt >= options.attempts:
        return None
    if isinstance(cause, Retry) and isinstance(cause.after, int | float) and cause.after >= 0:  # not NaN
        return min(cause.after, MAX_DELAY)
    if isinstance(cause, (Retry, *options.retry_on)) or (isinstance(cause, TimeLimitExceeded) and TimeoutError in options.retry_on):
        return back_off(options.backoff, attempt)
    return None


def back_off(base: float, attempt: int) -> float:
    """Seconds before attempt number `attempt` + 1: doubled each time, never above an hour, with a jitter of a quarter."""
    return float(min(base * 2 ** min(attempt - 1, 20), 3600.0) * random.uniform(0.75, 1.25))
