"""Which dispatches of one gateway have come to this process: it may be asked of one that was lost on its way, or never sent.

Each dispatch has a number of its own, and they come nearly in rising order. What is remembered is the last of them, one by one; of what is
older than these nobody can be told that it never came. What a claim is answered is in `workers/claims.py`.
"""

from collections import deque
from typing import Final

MOST_REMEMBERED: Final = 10_000


class Dispatches:
    """Remembers the last `MOST_REMEMBERED` numbers. Nothing is known of `floor` and what is below it."""

    __slots__ = ("_came", "_order", "floor")

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self._came: set[int] = set()
        self._order: deque[int] = deque()

    def add(self, number: int) -> None:
        """It has come."""
        self._came.add(number)
        self._order.append(number)
        if len(self._order) > MOST_REMEMBERED:
            oldest = self._order.popleft()
            self._came.discard(oldest)
            if oldest > self.floor:
                self.floor = oldest

    def never_came(self, number: int) -> bool:
        """Whether it is certain."""
        return number > self.floor and number not in self._came
