"""What a worker process says of itself, on the scoreboard and where it is asked for its connections."""

import time
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from app.heartbeat import MOST_SHOWN, Look
from app.labels import id_of
from workers.executor import Executor


def look(executor: Executor, connections: int) -> Look:
    """At this moment. What a gateway sent is counted there, by function; here, only what came straight to the Text port."""
    ahead = time.time() - time.monotonic()
    running = [
        (attempt.function, id_of(attempt.id), round(attempt.started_at + ahead, 3)) for attempt in islice(executor.running, MOST_SHOWN)
    ]
    slots = executor.slots
    gauges = {"slots": slots.most, "process_slots": slots.most_processes}
    return Look(connections, executor.began, slots.used, running, gauges, executor.ends.tree())


def listing(sockets: Collection[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `control.Listing`."""
    for sock in list(sockets):
        yield sock.fileno(), {"protocol": "text"}
