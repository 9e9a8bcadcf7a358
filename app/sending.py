"""When a task whose dispatch is committed leaves for its worker: at once where it has a slot, else with the next slot that is free.

While a dispatch is committed, tasks end; so as many are committed ahead of a free slot as end in that time, and no slot stands empty for
the length of a commit. Where nothing ends, nothing is placed ahead. What waits longer than a commit goes back to the queue, where it may
get a slot of another worker, and where others may come before it.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from app.errors import Unavailable
from app.link import Link
from app.places import Places
from app.task import Task

HELD_FOR: Final = 0.05
"""Seconds for which a task waits for a slot of the worker that it was placed on."""

_SLOWLY: Final = 4
"""Commits over which the number that ends during one is levelled."""


class Sending:
    """Of one ledger. `put_back` queues a task again that was not sent."""

    def __init__(self, places: Places, put_back: Callable[[Task], None], loop: Any) -> None:
        self._places = places
        self._put_back = put_back
        self._loop = loop
        self._held: dict[Task, float] = {}  # with the moment since which it waits; the first has waited longest
        self._timer: Any = None
        self._level = self._learned_at = 0.0

    def learn(self, ended: int) -> None:
        """So many tasks ended from when something was given to the journal until it was kept."""
        self._level = self._level + (ended - self._level) / _SLOWLY if ended else 0.0
        self._places.ahead = int(self._level)
        self._learned_at = time.monotonic()

    def age(self) -> None:
        """What was learned says nothing of a later time. To be called before anything is placed in a turn."""
        if self._places.ahead and time.monotonic() - self._learned_at > HELD_FOR:
            self._level = 0.0
            self._places.ahead = 0

    def send(self, task: Any, link: Link) -> None:
        """Its dispatch is kept; where its worker is lost meanwhile, or the task is cancelled, it does not leave."""
        if task.link is not link or task.sent:
            return
        if not link.can_be_sent_to:  # it fell silent meanwhile, or is about to leave: another may have a slot
            self._put_back(task)
        elif self._places.has_slot(task, link):
            self._leave(task, link)
        elif task not in self._held:
            self._held[task] = time.monotonic()
            if self._timer is None:
                self._watch()

    def released(self, task: Task) -> None:
        """It is at its worker no more, or never was: another may take its slot."""
        if not self._held:
            return
        self._held.pop(task, None)
        for other in self._held:
            link = other.link
            if self._places.has_slot(other, link) and link.can_be_sent_to and not link.resting:
                del self._held[other]
                self._leave(other, link)
                return

    def give_up(self, before: float = float("inf")) -> None:
        """What has waited since before that moment is queued again."""
        overdue = [task for task, since in self._held.items() if since < before]
        for task in overdue:
            del self._held[task]
        for task in overdue:
            self._put_back(task)

    def _leave(self, task: Task, link: Link) -> None:
        try:
            link.place(task.line())
        except Unavailable:
            self._put_back(task)
            return
        self._places.begin(task, link)
        if task.cancelling:
            link.cancel(task)

    def _watch(self) -> None:
        self._timer = self._loop.timer(HELD_FOR)
        self._timer.start(self._look)

    def _look(self) -> None:
        """Slots do not become free as they did: place nothing ahead until they do."""
        self._timer.close()
        self._timer = None
        overdue = time.monotonic() - HELD_FOR
        if any(since < overdue for since in self._held.values()):
            self._level = 0.0
            self._places.ahead = 0
            self.give_up(overdue)
        if self._held:
            self._watch()
