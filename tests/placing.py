"""Workers of which nothing is real but their slots, and what the ledger does with tasks that are placed there."""

from typing import Any

import gevent

from app.errors import Unavailable
from app.link import Link
from app.messages import Submit
from app.places import Places
from app.sending import Sending
from app.task import Task

PLAIN = {"name": "plain", "options": {}}
CAPPED = {"name": "capped", "options": {"max_running": 2}}


class Worker(Link):
    """A link that notes what is sent, instead of sending it."""

    def __init__(self, name: str, slots: int) -> None:
        super().__init__(f"{name} {name} 1", local=True)
        self.describe({"slots": slots, "process_slots": 1, "siblings": 1, "functions": [PLAIN, CAPPED]})
        self.got: list[str] = []
        self.connection: Any = self  # nothing is asked of it

    def place(self, line: bytes) -> None:
        """As a connection that is there, or is not."""
        if self.leaving:
            raise Unavailable("it is leaving")
        self.got.append(line.decode().split('"')[3])


class Scene:
    """Some workers, and what the ledger would do with tasks."""

    def __init__(self, *slots: int) -> None:
        self.workers = [Worker(f"w{number}", count) for number, count in enumerate(slots)]
        self.places = Places()
        self.places.count(list(self.workers))
        self.back: list[str] = []
        self.sending = Sending(self.places, self._put_back, gevent.get_hub().loop)
        self.count = 0

    def _put_back(self, task: Task) -> None:
        self.back.append(task.id)
        self.places.give(task)
        self.sending.released(task)

    def commit_quickly(self, ended: int) -> None:
        """Have it learn that so many end during a commit."""
        for _ in range(50):
            self.sending.learn(ended)

    def place(self, function: str = "plain") -> Task | None:
        """A task that is placed where there is room, or None; its dispatch is not committed yet."""
        link = self.places.find(function)
        if link is None:
            return None
        self.count += 1
        task = Task("", None, Submit(f"t{self.count}", function, None), b"{}", self.count)
        self.places.take(task, link)
        return task

    def fill(self, function: str = "plain") -> list[Task]:
        """As many as can be placed, each of them committed."""
        placed = []
        while (task := self.place(function)) is not None:
            placed.append(task)
            self.sending.send(task, task.link)
        return placed

    def end(self, task: Any) -> None:
        """It is over."""
        self.places.give(task)
        self.sending.released(task)

    @property
    def sent(self) -> list[str]:
        """The ids of all that left, worker by worker."""
        return [task_id for worker in self.workers for task_id in worker.got]
