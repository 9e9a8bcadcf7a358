"""Whose turn it is: tasks wait here until there is a place for them; owners take turns, and `priority` orders one's own.

One owner with 100,000 tasks delays another's single one by about one task. A function that may not run more of itself holds back only its
own tasks. Every step is constant or logarithmic in what waits. What a place is, the caller says; nothing here knows of workers.
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol


class Queued(Protocol):
    """What can wait; where it is no longer `queued` when its turn comes, it is left out."""

    lane: Any
    function: str
    priority: int
    order: int
    queued: bool


class _Lane:
    """What one owner has waiting: for each function a heap, highest priority first, then in the order of submission."""

    __slots__ = ("asleep", "heaps", "name")

    def __init__(self, name: Any) -> None:
        self.name = name
        self.heaps: dict[str, list[tuple[int, int, Any]]] = {}
        self.asleep = False

    def push(self, task: Queued) -> None:
        heap = self.heaps.get(task.function)
        if heap is None:
            self.heaps[task.function] = [(-task.priority, task.order, task)]
        else:
            heapq.heappush(heap, (-task.priority, task.order, task))


class FairQueue:
    """Tasks that wait for a place, by owner ("lane") and function. `size` counts those still waiting, if the owner of the queue says
    `drop` for each that no longer does."""

    def __init__(self) -> None:
        self.size = 0
        self._lanes: dict[Any, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._sleeping: dict[str, dict[_Lane, None]] = {}

    def push(self, task: Queued) -> None:
        """Let it wait."""
        self.size += 1
        lane = self._lanes.get(task.lane)
        if lane is None:
            lane = self._lanes[task.lane] = _Lane(task.lane)
            self._ready.append(lane)
        elif lane.asleep:
            self._wake(lane)
        lane.push(task)

    def drop(self) -> None:
        """One of those that wait does so no longer; it is taken out when its turn comes."""
        self.size -= 1

    def pop(self, place: Callable[[str], Any]) -> tuple[Any, Any] | None:
        """The next task with its place; `place` gives a function's, or None where there is none now. None where nobody can go."""
        while self._ready:
            lane = self._ready.popleft()
            found = self._take(lane, place)
            if found is not None:
                self.size -= 1
                if lane.heaps:
                    self._ready.append(lane)
                else:
                    del self._lanes[lane.name]
                return found
            if lane.heaps:
                self._put_to_sleep(lane)
            else:
                del self._lanes[lane.name]
        return None

    @property
    def held_back(self) -> list[str]:
        """The functions for which owners wait in their sleep; when there are places again, `wake` them."""
        return list(self._sleeping)

    def wake(self, function: str, places: int) -> None:
        """There are places for this function again: as many owners as can use them, longest asleep first."""
        sleeping = self._sleeping[function]
        while places > 0 and sleeping:
            lane = next(iter(sleeping))
            del sleeping[lane]
            if lane.asleep and function in lane.heaps:
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
            while heap and not heap[0][2].queued:
                heapq.heappop(heap)
            if not heap:
                del heaps[function]
            elif (best is None or heap[0] < best) and (found := place(function)) is not None:
                best, where = heap[0], found
        if best is None:
            return None
        task = best[2]
        heap = heaps[task.function]
        heapq.heappop(heap)
        if not heap:
            del heaps[task.function]
        return task, where

    def _wake(self, lane: _Lane) -> None:
        lane.asleep = False
        self._ready.append(lane)

    def _put_to_sleep(self, lane: _Lane) -> None:
        lane.asleep = True
        for function in lane.heaps:
            self._sleeping.setdefault(function, {})[lane] = None


def bulkhead(slots: int) -> int:
    """How many of `slots` one function may have by default: not the last tenth, so that a thousand mails never stop a short task."""
    return max(1, slots - (slots + 9) // 10)
