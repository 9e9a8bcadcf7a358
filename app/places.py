"""Which worker gets the next task of a function, and how many of a function may run over all of them. Counting, on the hot path.

Who the workers are, and how they are met, is the pool's; who waits for a place is the queue's.
"""

from app.fairness import bulkhead
from app.link import Link, Offer
from app.task import Task

SHARED, PROCESS = "shared", "process"
"""The kinds of slots: for greenlets and threads, and for processes of their own."""


class Quota:
    """Of one function: how many of it run over all links, of how many that may, the links that offer it, and what it declares."""

    __slots__ = ("in_process", "limit", "links", "offer", "running")

    def __init__(self, offer: Offer) -> None:
        self.running = 0
        self.limit = 0
        self.in_process = False
        self.links: list[Link] = []
        self.offer = offer

    def set(self, links: list[Link], name: str) -> None:
        """Count anew: these links offer the function now."""
        self.links = links
        if not links:
            self.limit = 0
            return
        offer = self.offer = links[0].offers[name]
        self.in_process = offer.in_process
        slots = sum(link.process_slots if offer.in_process else link.slots for link in links)
        self.limit = offer.max_running or (slots if offer.in_process else bulkhead(slots))


class Places:
    """The slots of all workers that can be sent to now, by function. A function that was offered once stays known."""

    def __init__(self) -> None:
        self._quotas: dict[str, Quota] = {}

    @property
    def taken(self) -> int:
        """How many tasks are at a worker."""
        return sum(quota.running for quota in self._quotas.values())

    def knows(self, function: str) -> bool:
        """Whether some worker has ever offered it."""
        return function in self._quotas

    def count(self, links: list[Link]) -> None:
        """These can be sent to from now on, and no others."""
        offers = {name: offer for link in links for name, offer in link.offers.items()}
        for name, offer in offers.items():
            if name not in self._quotas:
                self._quotas[name] = Quota(offer)
        for name, quota in self._quotas.items():
            quota.set([link for link in links if name in link.offers], name)

    def offer(self, function: str) -> Offer:
        """What the function, which is known, declares of itself."""
        return self._quotas[function].offer

    def find(self, function: str) -> Link | None:
        """The least busy link that may be given a task of this function now."""
        quota = self._quotas.get(function)  # none: of a task that an earlier process accepted, and that no worker offers yet
        if quota is None or quota.running >= quota.limit:
            return None
        best: Link | None = None
        least = 1 << 30
        for link in quota.links:
            if quota.in_process:
                used, slots = link.used_processes, link.process_slots
            else:
                used, slots = link.used, link.slots
            if used < slots and used < least and not link.resting:
                best, least = link, used
        return best

    def room(self, function: str) -> int:
        """At most how many tasks of this function could be placed now."""
        quota = self._quotas.get(function)
        if quota is None:
            return 0
        if quota.in_process:
            free = sum(link.process_slots - link.used_processes for link in quota.links if not link.resting)
        else:
            free = sum(link.slots - link.used for link in quota.links if not link.resting)
        return min(free, quota.limit - quota.running)

    def take(self, task: Task, link: Link) -> None:
        """The task gets a slot there."""
        quota = self._quotas[task.function]
        quota.running += 1
        link.tasks[task.id] = task
        task.link = link
        if quota.in_process:
            link.used_processes += 1
            task.slot = PROCESS
        else:
            link.used += 1
            task.slot = SHARED

    def take_back(self, link: Link) -> None:
        """A link that an earlier process used was met again: its tasks have their slots still."""
        for task in link.tasks.values():
            if not task.slot and task.function in self._quotas:
                self.take(task, link)

    def give(self, task: Task) -> None:
        """Its slot is free, and it is there no more."""
        link = task.link
        del link.tasks[task.id]
        task.link = None
        task.sent = False
        if not task.slot:
            return  # of a worker that was not met again
        self._quotas[task.function].running -= 1
        if task.slot is PROCESS:
            link.used_processes -= 1
        else:
            link.used -= 1
        task.slot = ""
