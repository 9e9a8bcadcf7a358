"""Watching over a WebSocket: one connection is shown what its gateway does, until it asks for an end of it.

    C: {"watch": true}
    S: {"watch": {"at", "figures": {…}, "history": [[…], …], "columns": […], "workers": [{…}, …]}}      at once
    S: {"watch": {"at", "tasks": [{…}, …]}}                                       what changed of one's own tasks, at most 4 times a second
    S: {"watch": {"at", "figures": {…}, "second": […], "workers": […]}}           once a second
    C: {"watch": false}
    S: {"watch": null}                                                            and nothing after it

`figures`: `accepted` and `finished` since the gateway began, `queued` and `unfinished` now. `history` and `second`: a row for a second, as
`columns` names it; rates are per second, times in seconds, null where nothing was measured in the last 5. `workers`: slots `used` of
`slots`, `lag` (seconds: the round trip of the last ping), `memory` (bytes), `runs` (how many of each function), `tasks` (those that have
run longest, with the `id` of one's own). `tasks`: entries as in `list`; first come all that are not over, those that run first. A task is
there once, as it stands at the push, whatever happened to it since the last. A push has at most `MOST_AT_ONCE` tasks, the oldest changes
first. Where a reader is more than `MOST_CHANGED` behind, `"again": true` says that what it knew of tasks that are not over is void, and
all of them are told anew. A reader with half of its limit unsent is skipped. Where tokens are asked for, figures, history and workers
are an operator's to see: others are told of their own tasks alone.
"""

import itertools
import time
from collections.abc import Callable
from typing import Any, Final

from app import wire
from app.dispatch import Dispatcher
from app.figures import Sample
from app.gateway.identity import Grant
from app.outbox import Outbox
from app.task import Key, Task

MOST_AT_ONCE: Final = 500
"""Tasks in one push."""

MOST_CHANGED: Final = 5000
"""Changed tasks that wait to be told, and tasks that are told at the start."""


class WatchFeed:
    """What one connection sees (a `watchtower.Feed`). `queue` sends a message; `half_full` is in bytes."""

    __slots__ = ("_again", "_changed", "_half_full", "_operator", "_outbox", "_queue", "_tower", "owner")

    def __init__(self, dispatcher: Dispatcher, grant: Grant, outbox: Outbox, queue: Callable[[bytes], None], half_full: int) -> None:
        self.owner = grant.subject
        self._operator = grant.operator
        self._tower = dispatcher.watchtower
        self._outbox = outbox
        self._queue = queue
        self._half_full = half_full
        self._changed: dict[Key, Task] = {}
        self._again = False

    def start(self) -> None:
        """Show what there is, and watch from now on."""
        tower = self._tower
        history = [_row(sample) for sample in tower.samples] if self._operator else []
        self._say(columns=Sample._fields, history=history, **self._whole())
        self._tell_all()
        tower.add(self)

    def stop(self) -> None:
        """Watch no longer."""
        self._tower.remove(self)
        self._changed.clear()

    def changed(self, task: Task) -> None:
        """As `Feed.changed`."""
        self._changed[task.key] = task  # where it stands there already, it keeps its place
        if len(self._changed) > MOST_CHANGED:
            self._again = True
            self._changed.clear()

    def push(self, seconds: bool) -> None:
        """As `Feed.push`."""
        if self._outbox.unsent > self._half_full:
            return
        fields: dict[str, Any] = {}
        if self._again:
            self._again = False
            fields["again"] = True
            self._tell_all()
        if self._changed:
            fields["tasks"] = self._take()
        if seconds:
            samples = self._tower.samples
            fields.update(second=_row(samples[-1]) if samples and self._operator else None, **self._whole())
        if fields:
            self._say(**fields)

    def _whole(self) -> dict[str, Any]:
        """What concerns everyone's tasks, for an operator."""
        tower = self._tower
        return {"figures": tower.figures(), "workers": tower.workers(self.owner)} if self._operator else {}

    def _tell_all(self) -> None:
        self._changed = {task.key: task for task in self._tower.unfinished(self.owner)[:MOST_CHANGED]}

    def _take(self) -> list[dict[str, Any]]:
        keys = list(itertools.islice(self._changed, MOST_AT_ONCE))
        return [self._tower.show(self._changed.pop(key)) for key in keys]

    def _say(self, **fields: Any) -> None:
        self._queue(wire.encode({"watch": {"at": round(time.time(), 3), **fields}}))


def _row(sample: Sample) -> list[float | None]:
    return [None if value is None else round(value, 6) for value in sample]
