"""One task at a gateway, as a session hears of it: what was said of it, and waiting for more.

What is said to the gateway is in `app/remote/conversation.py`.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from app.errors import HandoffError, RemoteError, Unavailable
from app.messages import FINAL_EVENTS

_FINAL = frozenset(event.value for event in FINAL_EVENTS)


class RemoteTask:
    """One task at a gateway, as this session hears of it. Its own attributes may be read at any time.

    `state` is `submitted`, then the name of the last event that was neither progress nor output, or `refused`; `seq` the number of the last
    event; `done`, `total` and `note` those of the last progress; `value` the result, `error` why there is none.
    """

    def __init__(self, task_id: str, lock: Any, cancel: "Callable[[RemoteTask], None]", *, function: str = "", seq: int = 0) -> None:
        """Of a session with this lock; `cancel` asks its gateway to cancel the task."""
        self.id = task_id
        self.function = function
        self.state = "submitted"
        self.seq = seq
        self.attempt = 0
        self.done: float | None = None
        self.total: float | None = None
        self.note: str | None = None
        self.value: Any = None
        self.error: RemoteError | None = None
        self._cancel = cancel
        self._told: deque[dict[str, Any]] = deque()
        self._lost: HandoffError | None = None  # why nothing more will be said of it
        self._changed = threading.Condition(lock)

    @property
    def finished(self) -> bool:
        """Whether it is over, or was refused."""
        return self.state in _FINAL or self.state == "refused"

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """What is said of it, as it comes, up to the final event; each is given once, to whoever iterates. `timeout`: seconds between two.

        Raises `RemoteError` where it was refused, `Unavailable` where the time or the session is over before it is.
        """
        while True:
            with self._changed:
                self._wait(timeout, self._told)
                if not self._told:
                    break
                event = self._told.popleft()
            yield event
        if self.state == "refused" and self.error is not None:
            raise self.error

    def result(self, timeout: float | None = None) -> Any:
        """What it returned. Raises `RemoteError` with the wire's code where it did not succeed, `Unavailable` as `events` does."""
        with self._changed:
            self._wait(timeout, ())
        if self.error is not None:
            raise self.error
        return self.value

    def _wait(self, timeout: float | None, told: Any) -> None:
        self._changed.wait_for(lambda: told or self.finished or self._lost, timeout)
        if told or self.finished:
            return
        reason = self._lost.message if self._lost else f"nothing was said of it for {timeout:g} s"
        raise Unavailable(f"{reason}; what becomes of {self.id} is not known here, attach to it to hear")

    def cancel(self) -> None:
        """Ask for it to be cancelled; whether it was is said by its final event."""
        self._cancel(self)

    # What the session says, under its lock.

    def take(self, event: dict[str, Any]) -> None:
        """The next event."""
        name = event["event"]
        self.seq = event["seq"]
        self.attempt = event.get("attempt", self.attempt)
        if name == "progress":
            self.done, self.total, self.note = event.get("done"), event.get("total"), event.get("note")
        elif name != "output":
            self.state = name
        if name == "succeeded":
            self.value = event.get("result")
        elif name in _FINAL:
            self.error = error_of({"code": name, **event.get("error", {})})
        self._told.append(event)
        self._changed.notify_all()

    def refuse(self, error: RemoteError) -> None:
        """Nothing was accepted, or nothing more will be told."""
        self.state, self.error = "refused", error
        self._changed.notify_all()

    def restart(self) -> None:
        """It is submitted anew, and its events will be numbered anew."""
        self.state, self.seq = "submitted", 0

    def lose(self, reason: HandoffError) -> None:
        """The session is over before the task is."""
        self._lost = reason
        self._changed.notify_all()


def error_of(said: Any) -> RemoteError:
    """The error object of the wire as an exception."""
    fields = dict(said) if type(said) is dict else {"message": str(said)}
    return RemoteError(str(fields.pop("code", "internal")), str(fields.pop("message", "")), **fields)
