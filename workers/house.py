"""What all connections of one worker process share, as they see it; `workers/server.py` is the house."""

from typing import Any, Protocol

from app.turn import Turn
from workers.claims import Claimant
from workers.executor import Executor
from workers.registry import Registry


class House(Protocol):
    """What all connections of one worker process share."""

    registry: Registry
    executor: Executor
    turn: Turn
    loop: Any
    max_line: int
    draining: bool

    def claimant(self, journal: str) -> Claimant:
        """The gateway that has this journal."""

    def describe(self) -> dict[str, Any]:
        """The catalogue, and what the worker tells of itself."""
