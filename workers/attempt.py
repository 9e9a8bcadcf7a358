"""One attempt of one task, as the worker holds it: its numbering, its coalesced progress, and the one final event that it ends with.

How it is run (greenlet, thread, process) is the executor's; where its events go is the sink's.
"""

import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from app import wire
from app.errors import Failed, HandoffError, TooLarge
from app.messages import FINAL_STATE, Event, State, event_body_line, event_line
from workers.context import Retry, TaskContext, TimeLimitExceeded, progress_fields
from workers.registry import Function, Options

PROGRESS_EVERY = 0.1
"""Seconds between two progress events of one attempt, at least; a thousandth of its age once that is more, so that a day fits in the
log."""

MAX_EVENTS = 10_000
MAX_EVENT_BYTES = 16 * 1024 * 1024


class Sink(Protocol):
    """Where the events of an attempt go."""

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
        "_after_hub",
        "_bytes",
        "_loop",
        "_pending",
        "_progress_at",
        "_timer",
        "args",
        "deadline",
        "final_only",
        "greenlet",
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

    def __init__(
        self, spec: Function, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], sink: Sink, *, attempt: int = 1
    ) -> None:
        super().__init__(task_id, spec.name, attempt, "")
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
        self.deadline = 0.0
        self.started_at = 0.0
        self._loop: Any = None
        self._after_hub: Callable[..., None] | None = None
        self._pending: dict[str, Any] | None = None
        self._progress_at = 0.0
        self._timer: Any = None
        self._bytes = 0

    def begin(self, loop: Any, worker: str, *, in_hub_thread: bool = True) -> None:
        """Say that it starts. `started` leaves at once: a function that blocks the hub would hold it back."""
        self._loop = loop
        self.state = State.RUNNING
        self.started_at = time.monotonic()
        if not in_hub_thread:
            self._after_hub = loop.run_callback_threadsafe
        if not self.final_only:
            self._say(Event.STARTED, b'"worker":' + wire.encode(worker))
            self.sink.flush()

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """As `TaskContext.progress`; also where a thread or a process of its own says it. Raises where the task should end."""
        self.check()
        fields = progress_fields(done, total, note)
        if self._after_hub is not None:
            self._after_hub(self.note_progress, fields)
        else:
            self.note_progress(fields)

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
        try:
            body = b'"value":' + wire.encode(value)
        except (TypeError, ValueError) as error:
            raise Failed(f"{self.function} yielded what JSON has no form for: {error}") from None
        if self.seq >= MAX_EVENTS or self._bytes + len(body) > MAX_EVENT_BYTES:
            raise TooLarge(f"what is kept of one task ({MAX_EVENTS} events)", MAX_EVENT_BYTES)
        if self._after_hub is not None:
            self._after_hub(self._say_output, body)
        else:
            self._say_output(body)
            self.sink.wait()

    def _say_output(self, body: bytes) -> None:
        if self.state is State.RUNNING:
            self._say_pending()
            self._say(Event.OUTPUT, body)

    def succeed(self, result: Any, limit: int) -> None:
        """End with `succeeded`, or `failed` where the result is no JSON or larger than `limit` bytes."""
        try:
            value = wire.encode(result)
        except (TypeError, ValueError) as error:
            self.fail(Event.FAILED, Failed(f"{self.function} returned what JSON has no form for: {error}"))
            return
        if len(value) > limit:
            self.fail(Event.FAILED, TooLarge("the result", limit))
            return
        self._end(Event.SUCCEEDED, b"result", value)

    def fail(self, event: Event, error: HandoffError) -> None:
        """End with another final event than `succeeded`."""
        self._end(event, b"error", wire.encode(error.as_wire()))

    def retry(self, after: float, error: HandoffError) -> None:
        """End this attempt with `retrying`: the gateway will send the task again after that many seconds."""
        self._finish(State.RETRYING)
        self.seq += 1
        self.sink.event(self, event_line(self.id, Event.RETRYING, self.seq, self.attempt, after=round(after, 3), error=error.as_wire()))

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
        self.sink.event(self, event_body_line(self.id, event, self.seq, self.attempt, body))


def retry_after(options: Options, cause: BaseException, attempt: int) -> float | None:
    """Seconds until a failed attempt is tried again; None where it is not: no attempts left, or its options do not name the cause."""
    if not options.retryable or attempt >= options.attempts:
        return None
    if isinstance(cause, Retry) and cause.after is not None:
        return cause.after
    if isinstance(cause, (Retry, *options.retry_on)) or (isinstance(cause, TimeLimitExceeded) and TimeoutError in options.retry_on):
        return back_off(options.backoff, attempt)
    return None


def back_off(base: float, attempt: int) -> float:
    """Seconds before attempt number `attempt` + 1: doubled each time, never above an hour, with a jitter of a quarter."""
    return float(min(base * 2 ** min(attempt - 1, 20), 3600.0) * random.uniform(0.75, 1.25))
