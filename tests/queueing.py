"""What a fair queue is tested with: jobs, and a naive picture of the workers that have places for them."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from app.fairness import FairQueue

ORDER = count()


@dataclass(eq=False)
class Job:
    """What waits."""

    lane: Any
    function: str = "f"
    priority: int = 0
    order: int = field(default_factory=ORDER.__next__)
    queued: bool = True
    ticket: int = 0


class Places:
    """So many slots, and a limit for some functions: what a pool of workers says, made naively."""

    def __init__(self, slots: int, **limits: int) -> None:
        self.slots = slots
        self.limits = limits
        self.running: list[Job] = []

    def free(self, function: str) -> int:
        running = sum(job.function == function for job in self.running)
        return min(self.slots - len(self.running), self.limits.get(function, self.slots) - running)

    def place(self, function: str) -> str | None:
        return "here" if self.free(function) > 0 else None

    def fill(self, queue: FairQueue) -> list[Job]:
        """As the gateway does at the end of a turn: wake who can go, then place who can be placed."""
        placed: list[Job] = []
        for function in queue.held_back:
            queue.wake(function, self.free(function))
        while (found := queue.pop(self.place)) is not None:
            job, where = found
            assert where == "here"
            self.running.append(job)
            placed.append(job)
        return placed

    def end(self, number: int = 0) -> None:
        """One of those that run ends."""
        self.running.pop(number)


def push_all(queue: FairQueue, *jobs: Job) -> None:
    for job in jobs:
        queue.push(job)


def drop(queue: FairQueue, job: Job) -> None:
    """As the gateway cancels."""
    job.queued = False
    queue.drop()
