"""What all WebSocket connections of a process share: the loop, what waits for the end of its turn, and the limits that they live under."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.turn import Turn


@dataclass(frozen=True, slots=True)
class Common:
    """`max_message` and `max_unsent` are in bytes; `connections` are those that are open, or about to end."""

    hub: Any
    turn: Turn
    max_message: int
    max_unsent: int
    numbers: Iterator[int]
    connections: set[Any]
