"""A task that a command has begun: through the gateway, or straight at the workers. Both give events and can be cancelled."""

import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol, Self

from app.client import TaskConnection
from app.messages import Submit


class Running(Protocol):
    """What the command follows."""

    id: str

    def events(self) -> Iterator[dict[str, Any]]:
        """Up to the final one; raises `RemoteError` where it was refused, `Unavailable` where nothing more will be heard."""

    def cancel(self) -> None:
        """Ask for it."""


class DirectTask:
    """A task on a connection to the workers. The gateway knows nothing of it: it is not kept, and not tried again."""

    def __init__(self, connection: TaskConnection, submit: Submit) -> None:
        self.id = submit.id
        self._connection = connection
        self._submit = submit

    def events(self) -> Iterator[dict[str, Any]]:
        """As `Running.events`; submits it."""
        return self._connection.events(self._submit.function, self._submit.args, task_id=self.id)

    def cancel(self) -> None:
        """As `Running.cancel`."""
        self._connection.send({"id": self.id, "cancel": True})


class Interrupts:
    """Ctrl-C while a task runs: the first cancels it, and its end is waited for; the second raises KeyboardInterrupt."""

    def __init__(self, task: Running) -> None:
        self._task = task
        self._cancelling = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._cancelling:
            raise KeyboardInterrupt
        self._cancelling = True
        os.write(2, b"handoff: cancelling; Ctrl-C again leaves it to itself\n")  # not by a stream, which may be in the middle of a write
        self._task.cancel()
