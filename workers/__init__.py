"""The workers' side: what runs the tasks. Import `task`, `progress` and `current` from here to write your own."""

from workers.context import Retry, current, progress
from workers.registry import task

__all__ = ["Retry", "current", "progress", "task"]
