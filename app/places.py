"""Which worker gets the next task of a function, and how many of a function may run over all of them. Counting, on the hot path.

A task that is placed has a link; it has a slot there from when it is sent. Who the workers are, and how they are met, is the pool's; who
waits for a place is the queue's; how many are placed ahead of the slots is found out in `app/sending.py`.
"""

from collections import Counter

from app.fairness import bulkhead
from app.link import Link, Offer
from app.task import Task

SHARED, PROCESS, AHEAD = "shared", "process", "ahead"
"""The kinds of slots: for greenlets and threads, for processes of their own, and none yet, of what is placed ahead of them."""

_AFTER_ALL = 1 << 20
"""A link that is full comes after all that have a free slot."""


class Quota:
    """Of one function: how many of it are placed over all links, how many of these were sent, of how many that may, the links that offer
    it, and what it declares. `eager`: it may be placed ahead of the slots. `elsewhere`: so many of the placed are at workers that take
    nothing more; but for a bound of the function's own, they take no place from the others."""

    __slots__ = ("eager", "elsewhere", "in_process", "limit", "links", "offer", "placed", "sent")

    def __init__(self, offer: Offer) -> None:
        self.placed = self.sent = self.elsewhere = 0
        self.eager = False
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
        self.eager = not offer.in_process and offer.max_running is None
        slots = sum(link.process_slots if offer.in_process else link.slots for link in links)
        self.limit = offer.max_running or (slots if offer.in_process else bulkhead(slots)) + self.elsewhere

    def shift(self, count: int) -> None:
        """So many more are elsewhere."""
        self.elsewhere += count
        if self.links and self.offer.max_running is None:
            self.limit += count


class Places:
    """The slots of all workers that can be sent to now, by function. A function that was offered once stays known. So many tasks as
    `ahead` says may be placed beyond the slots, over all links; `ended` counts those that had a slot and gave it back."""

    def __init__(self) -> None:
        self._quotas: dict[str, Quota] = {}
        self._links = 1
        self._counted: list[Link] = []
        self.ahead = 0
        self.ended = 0

    @property
    def taken(self) -> int:
        """How many tasks are at a worker."""
        return sum(quota.placed for quota in self._quotas.values())

    def knows(self, function: str) -> bool:
        """Whether some worker has ever offered it."""
        return function in self._quotas

    def count(self, links: list[Link]) -> None:
        """These can be sent to from now on, and no others."""
        self._links = max(1, len(links))
        here: Counter[str] = Counter()
        for link in self._counted:
            link.counted = False
        for link in links:
            link.counted = True
            here.update(task.function for task in link.tasks.values() if task.slot)
        self._counted = links
        offers = {name: offer for link in links for name, offer in link.offers.items()}
        for name, offer in offers.items():
            if name not in self._quotas:
                self._quotas[name] = Quota(offer)
        for name, quota in self._quotas.items():
            quota.elsewhere = quota.placed - here[name]
            quota.set([link for link in links if name in link.offers], name)

    def offer(self, function: str) -> Offer:
        """What the function, which is known, declares of itself."""
        return self._quotas[function].offer

    def find(self, function: str) -> Link | None:
        """The least busy link that may be given a task of this function now."""
        quota = self._quotas.get(function)  # none: of a task that an earlier process accepted, and that no worker offers yet
        if quota is None:
            return None
        ahead = self.ahead if quota.eager else 0
        if quota.placed >= quota.limit + ahead:
            return None
        best: Link | None = None
        least = 1 << 30
        within = quota.placed < quota.limit
        if ahead:
            ahead = -(-ahead // self._links)
        for link in quota.links:
            if quota.in_process:
                used, slots = link.used_processes, link.process_slots
            else:
                used, slots = link.used, link.slots
                if within and used - link.ahead < slots:  # a slot is free: what others have placed ahead does not stand in the way
                    used -= link.ahead
                elif ahead:
                    used, slots = used + _AFTER_ALL, slots + ahead + _AFTER_ALL
            if used < slots and used < least and not link.resting:
                best, least = link, used
        return best

    def room(self, function: str) -> int:
        """At most how many tasks of this function could be placed now."""
        quota = self._quotas.get(function)
        if quota is None:
            return 0
        ahead = self.ahead if quota.eager else 0
        if quota.in_process:
            free = sum(link.process_slots - link.used_processes for link in quota.links if not link.resting)
        else:
            free = sum(max(0, link.slots - link.used + link.ahead) for link in quota.links if not link.resting)
        return min(free, quota.limit - quota.placed) + ahead

    def take(self, task: Task, link: Link) -> None:
        """The task is to go there."""
        quota = self._quotas[task.function]
        link.tasks[task.label] = task
        task.link = link
        if quota.in_process:
            link.used_processes += 1
            task.slot = PROCESS
        elif quota.placed < quota.limit and link.used - link.ahead < link.slots:
            link.used += 1
            task.slot = SHARED
        else:
            link.used += 1
            link.ahead += 1
            task.slot = AHEAD
        quota.placed += 1
        if not link.counted:
            quota.shift(1)

    def take_back(self, link: Link) -> None:
        """A link that an earlier process used was met again: its tasks have their slots still."""
        for task in link.tasks.values():
            if not task.slot and task.function in self._quotas:
                self.take(task, link)
                self.begin(task, link)

    def has_slot(self, task: Task, link: Link) -> bool:
        """Whether a task that is placed there can be sent now. In what was not placed ahead there is always a slot."""
        quota = self._quotas[task.function]
        return quota.in_process or (link.running < link.slots and quota.sent < quota.limit)

    def begin(self, task: Task, link: Link) -> None:
        """It is sent there, and has a slot from now on."""
        task.sent = True
        if task.slot is AHEAD:
            task.slot = SHARED
            link.ahead -= 1
        if task.slot is SHARED:
            self._quotas[task.function].sent += 1
            link.running += 1

    def give(self, task: Task) -> None:
        """Its slot is free, and it is there no more."""
        link, sent = task.link, task.sent
        del link.tasks[task.label]
        task.link = None
        task.sent = False
        if not task.slot:
            return  # of a worker that was not met again
        quota = self._quotas[task.function]
        quota.placed -= 1
        if not link.counted:
            quota.shift(-1)
        if sent and task.slot is SHARED:
            quota.sent -= 1
            link.running -= 1
            self.ended += 1
        if task.slot is PROCESS:
            link.used_processes -= 1
        else:
            link.used -= 1
            link.ahead -= task.slot is AHEAD
        task.slot = ""
