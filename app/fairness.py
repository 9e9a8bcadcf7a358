"""Whose turn it is: tasks wait here until there is a place for them; owners take turns, and `priority` orders one's own.

One owner with 100,000 tasks delays another's single one by about one task. A function that may not run more of itself holds back only its
own tasks. Every step is constant or logarithmic in what waits. What a place is, the caller says; nothing here knows of workers.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Set
from itertools import count
from operator import attrgetter
from typing import Any, Protocol

MOST_DROPPED = 1000
"""Dropped tasks that may be held, beyond as many as wait."""


class Queued(Protocol):
    """What can wait; where it is no longer `queued` when its turn comes, it is left out."""

    lane: Any
    function: str
    priority: int
    order: int
    queued: bool
    ticket: int


class _Lane:
    """What one owner has waiting: for each function a heap, highest priority first, then in the order of submission.

    `turn`: who has the lowest goes first; it is a new one after each task that went, and nothing else changes it. `listed`: the functions
    under which it stands among those that sleep.
    """

    __slots__ = ("asleep", "heaps", "listed", "name", "turn")

    def __init__(self, name: Any, turn: int) -> None:
        self.name = name
        self.turn = turn
        self.heaps: dict[str, list[tuple[int, int, Any]]] = {}
        self.asleep = False
        self.listed: set[str] = set()

    def sweep(self) -> None:
        """Take out all that do not want their turn any more."""
        kept = {function: [entry for entry in heap if entry[2].queued] for function, heap in self.heaps.items()}
        self.heaps = {function: heap for function, heap in kept.items() if heap}
        for heap in self.heaps.values():
            heapq.heapify(heap)


class FairQueue:
    """Tasks that wait for a place, by owner ("lane") and function. `size` counts those still waiting, if the owner of the queue says
    `drop` for each that no longer does; `pushed` counts those that ever waited."""

    def __init__(self) -> None:
        self.size = 0
        self.pushed = 0
        self._dropped = 0
        self._next_turn = count().__next__
        self._lanes: dict[Any, _Lane] = {}
        self._lanes_with: dict[str, int] = {}  # for each function, how many lanes have a heap of it
        self._ready: deque[_Lane] = deque()  # in the order of turns, but for those that woke
        self._woke = False
        self._sleeping: dict[str, list[tuple[int, _Lane]]] = {}

    def push(self, task: Queued) -> None:
        """Let it wait. One that comes again keeps the `ticket` that it had."""
        self.size += 1
        self.pushed += 1
        if not task.ticket:
            task.ticket = self.pushed
        lane = self._lanes.get(task.lane)
        if lane is None:
            lane = self._lanes[task.lane] = _Lane(task.lane, self._next_turn())
            self._ready.append(lane)
        elif lane.asleep:
            self._wake(lane)
        function = task.function
        heap = lane.heaps.get(function)
        if heap is None:
            lane.heaps[function] = [(-task.priority, task.order, task)]
            self._lanes_with[function] = self._lanes_with.get(function, 0) + 1
        else:
            heapq.heappush(heap, (-task.priority, task.order, task))

    def drop(self) -> None:
        """One of those that wait does so no longer; it is taken out when its turn comes, or when too many of its kind are held."""
        self.size -= 1
        self._dropped += 1
        if self._dropped > self.size + MOST_DROPPED:
            self._sweep()

    def position(self, task: Queued) -> int:
        """About how many are before it: as many as had come before it, less those that have left. Exact where all have one owner, one
        function and one priority, and nobody was dropped behind it."""
        return max(0, task.ticket - 1 - (self.pushed - self.size))

    def pop(self, place: Callable[[str], Any]) -> tuple[Any, Any] | None:
        """The next task with its place; `place` gives a function's, or None where there is none now. None where nobody can go."""
        if self._woke:
            self._woke = False
            self._ready = deque(sorted(self._ready, key=_turn_of))
        held_back: Set[str] = _NONE
        while self._ready:
            lane = self._ready.popleft()
            found = self._take(lane, place)
            if found is not None:
                self.size -= 1
                if lane.heaps:
                    lane.turn = self._next_turn()
                    self._ready.append(lane)
                else:
                    del self._lanes[lane.name]
                return found
            if not lane.heaps:
                del self._lanes[lane.name]
            elif self._all_held_back(held_back := held_back | lane.heaps.keys()):
                self._ready.appendleft(lane)
                return None
            else:
                self._put_to_sleep(lane)
        return None

    def _all_held_back(self, functions: Set[str]) -> bool:
        """Whether nothing else than these waits: then nobody need be put to sleep, only to be woken again with the next free place."""
        return len(functions) == len(self._lanes_with)

    @property
    def held_back(self) -> list[str]:
        """The functions for which owners wait in their sleep; when there are places again, `wake` them."""
        return list(self._sleeping)

    def wake(self, function: str, places: int) -> None:
        """There are places for this function again: as many owners as can use them, in the order of their turns."""
        sleeping = self._sleeping[function]
        while places > 0 and sleeping:
            turn, lane = sleeping[0]
            if turn < lane.turn:  # it has gone since, with a task of another function
                heapq.heapreplace(sleeping, (lane.turn, lane))
                continue
            heapq.heappop(sleeping)
            lane.listed.discard(function)
            if lane.asleep and self._waits_for(lane, function):
                self._wake(lane)
                places -= 1
        if not sleeping:
            del self._sleeping[function]

    def _take(self, lane: _Lane, place: Callable[[str], Any]) -> tuple[Any, Any] | None:
        """The best of those heads of the lane's heaps for which there is a place."""
        best: tuple[int, int, Any] | None = None
        where: Any = None
        heaps = lane.heaps
        for function in tuple(heaps):
            heap = heaps[function]
            if not heap[0][2].queued and not self._waits_for(lane, function):
                continue
            if (best is None or heap[0] < best) and (found := place(function)) is not None:
                best, where = heap[0], found
        if best is None:
            return None
        task = best[2]
        heap = heaps[task.function]
        heapq.heappop(heap)
        if not heap:
            self._drop_heap(lane, task.function)
        return task, where

    def _waits_for(self, lane: _Lane, function: str) -> bool:
        """Whether it has a task of this function that still wants its turn; those that do not are taken out on the way."""
        heap = lane.heaps.get(function)
        if heap is None:
            return False
        while heap and not heap[0][2].queued:
            heapq.heappop(heap)
        if not heap:
            self._drop_heap(lane, function)
        return bool(heap)

    def _drop_heap(self, lane: _Lane, function: str) -> None:
        del lane.heaps[function]
        self._lanes_with[function] -= 1
        if not self._lanes_with[function]:
            del self._lanes_with[function]

    def _wake(self, lane: _Lane) -> None:
        lane.asleep = False
        self._woke = True
        self._ready.append(lane)

    def _put_to_sleep(self, lane: _Lane) -> None:
        lane.asleep = True
        for function in lane.heaps.keys() - lane.listed:
            lane.listed.add(function)
            heapq.heappush(self._sleeping.setdefault(function, []), (lane.turn, lane))

    def _sweep(self) -> None:
        """Let go of all that was dropped. As many were as there are others, so that is constant for each of them."""
        self._dropped = 0
        for lane in list(self._lanes.values()):
            lane.sweep()
            if not lane.heaps:
                del self._lanes[lane.name]
        self._ready = deque(lane for lane in self._ready if lane.heaps)
        self._lanes_with = dict(Counter(function for lane in self._lanes.values() for function in lane.heaps))
        for sleeping in self._sleeping.values():
            sleeping[:] = sorted((lane.turn, lane) for _, lane in sleeping if lane.heaps)


_turn_of = attrgetter("turn")
_NONE: frozenset[str] = frozenset()


def bulkhead(slots: int) -> int:
    """How many of `slots` one function may have by default: not the last tenth, so that a thousand mails never stop a short task."""
    return max(1, slots - (slots + 9) // 10)
