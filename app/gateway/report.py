"""What a gateway process says of itself, on the scoreboard and where it is asked for its connections."""

from collections.abc import Collection, Iterator
from typing import Any

from app.dispatch import Dispatcher
from app.durable import DurableJournal
from app.gateway.websocket import Connection
from app.heartbeat import Look


class Report:
    """Of one process: `requests` are the sockets that speak HTTP, `connections` those that have become WebSockets."""

    def __init__(self, dispatcher: Dispatcher, requests: Collection[Any], connections: Collection[Connection]) -> None:
        self._dispatcher = dispatcher
        self._requests = requests
        self._connections = connections

    def look(self) -> Look:
        """At this moment."""
        gauges, counts = self._dispatcher.watchtower.look()
        journal = self._dispatcher.journal
        if isinstance(journal, DurableJournal):
            counts |= {"commits": journal.commits, "transactions": journal.transactions}
        connections = len(self._connections) + len(self._requests)
        return Look(connections, counts["accepted"], int(gauges["running"]), [], gauges, counts)

    def listing(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """As `control.Listing`."""
        for connection in list(self._connections):
            known = {
                "protocol": "websocket",
                "id": connection.id,
                "unsent": connection.outbox.unsent,
                "unfinished": len(connection.unfinished),
            }
            yield connection.outbox.descriptor, known
        for sock in list(self._requests):
            yield sock.fileno(), {"protocol": "http"}
        for outbox, name in self._dispatcher.watchtower.connections():
            yield outbox.descriptor, {"protocol": "worker", "id": name, "unsent": outbox.unsent}
