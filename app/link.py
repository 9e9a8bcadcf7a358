"""One worker process as the gateway knows it: its kept connection, its slots, and the tasks that it has.

Which link gets a task is in `app/places.py`; what the lines mean for a task is in `app/reports.py`.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent

from app.address import Address
from app.client import TaskConnection
from app.ends import Remains, end_path, remains
from app.errors import HandoffError, Unavailable
from app.outbox import Outbox
from app.rundir import RunDirectory
from app.task import Task
from app.turn import Turn
from app.wire import encode_line

log = logging.getLogger(__name__)

STALE_AFTER = 0.25
"""Seconds without an answer to a ping after which a process gets nothing more for now."""

CLAIMS_A_LINE = 30
"""So many fit into the shortest line that a worker may be told to take."""

END_WITHIN = 0.5
"""Seconds for which the master's word is waited for, of how a worker of this machine ended."""

BUSY_FOR = 0.1
"""Seconds for which a process that answered `busy` gets nothing more."""


class Offer(NamedTuple):
    """One function as a worker offers it."""

    name: str
    in_process: bool
    max_running: int | None
    retryable: bool
    attempts: int
    backoff: float
    durable: bool

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "Offer":
        """From its entry in a worker's `describe`."""
        options = entry.get("options", {})
        return cls(
            entry["name"],
            options.get("run_in") == "process",
            options.get("max_running"),
            options.get("retryable", False),
            options.get("attempts", 1),
            options.get("backoff", 1.0),
            options.get("durable", True),
        )


def label_of(description: dict[str, Any]) -> str:
    """How a worker that describes itself is called in the journal: instance, name and pid. Raises `KeyError` or `TypeError`."""
    return f"{description['instance']} {description['name'].replace(' ', '-')} {description['pid']:d}"


class LinkConnection:
    """One connection to a worker, kept. `to_ack` counts its events that are in the journal, and that the worker was not told of yet."""

    __slots__ = ("_connection", "_loop", "heard_at", "link", "outbox", "to_ack")

    def __init__(self, link: "Link", connection: TaskConnection, turn: Turn, loop: Any) -> None:
        self.link = link
        self._connection = connection
        self._loop = loop
        self.outbox = Outbox(connection.socket, turn, loop, self.close)
        self.heard_at = time.monotonic()
        self.to_ack = 0

    def read(self, on_line: Callable[["LinkConnection", bytes], None]) -> None:
        """Hand on its lines until it is lost; blocks this greenlet."""
        wait = gevent.get_hub().wait
        readable = self._loop.io(self._connection.socket.fileno(), 1)
        try:
            while True:
                wait(readable)
                lines = self._connection.read_lines()
                self.heard_at = time.monotonic()
                for line in lines:
                    on_line(self, line)
        except HandoffError as error:
            log.info("link-lost: %s: %s", self.link.name, error.message)
        finally:
            readable.close()
            self.outbox.close()
            self._connection.close()

    def acknowledge(self) -> None:
        """Tell the worker what it need not keep any more."""
        if self.to_ack:
            self.outbox.put(b'{"ack":%d}\n' % self.to_ack)
            self.to_ack = 0

    def close(self) -> None:
        """End it: the reader sees the end of the stream."""
        try:
            self._connection.socket.shutdown(2)
        except OSError:
            log.debug("closed already")


class Link:
    """A worker process. `tasks` are those that it has, by label; it outlives its connection, so that they can be claimed again. One that an
    earlier gateway knew is `remembered` until it is met: nothing is known of it but its `label`, which stands in the journal.
    `used` counts those that are placed on its shared slots, `running` those of them that were sent, `ahead` those that wait for a slot yet.
    `round_trip` (seconds) is that of its last sign of life, `memory` (bytes) what it said there of itself. `counted`: its slots are among
    those that can be used now."""

    def __init__(self, label: str, local: bool) -> None:
        self.label = label
        self.instance, self.short_name, pid = label.split(" ")
        self.pid = int(pid)
        self.name = f"{self.short_name} (pid {pid})"
        self.remembered = True
        self.slots = 0
        self.process_slots = 0
        self.siblings = 1
        self.catalogue: list[dict[str, Any]] = []
        self.offers: dict[str, Offer] = {}
        self.local = local
        self.tasks: dict[str, Task] = {}
        self.used = self.running = self.ahead = 0
        self.used_processes = 0
        self.address: Address | None = None
        self.connection: LinkConnection | None = None
        self.lost_at = 0.0
        self.remains = Remains()
        self.leaving = False
        self.asked_at = 0.0
        self.round_trip = 0.0
        self.memory = 0
        self.stale = False
        self.resting = False
        self.counted = False

    @property
    def can_be_sent_to(self) -> bool:
        """Whether new tasks may go there."""
        return self.connection is not None and not self.stale and not self.leaving

    def describe(self, description: dict[str, Any]) -> None:
        """What it tells of itself. Raises `KeyError` or `TypeError` where it does not tell what it should."""
        self.slots = description["slots"]
        self.process_slots = description["process_slots"]
        self.siblings = description["siblings"]
        self.catalogue = description["functions"]
        self.offers = {offer.name: offer for offer in map(Offer.of, self.catalogue)}
        self.leaving = bool(description.get("leaving"))
        self.remembered = False

    def send(self, line: bytes) -> None:
        """Queue a line. Raises `Unavailable` while there is no connection."""
        if self.connection is None:
            raise Unavailable(f"{self.name} is not connected")
        self.connection.outbox.put(line)

    def place(self, line: bytes) -> None:
        """As `send`, for a task that is new to it; raises `Unavailable` also where it takes nothing more."""
        if self.leaving:
            raise Unavailable(f"{self.name} is leaving")
        self.send(line)

    def leave(self) -> None:
        """It takes nothing more. It has to know that what it has read of us by then was all."""
        self.leaving = True
        self.send(b'{"leaving":true}\n')

    def claim(self, journal: str) -> None:
        """The first lines on a new connection: who we are, which tasks we believe to be there, and which of them are to be cancelled."""
        sent = [task for task in self.tasks.values() if task.sent]
        claims = [[task.label, task.attempt, task.kept, task.dispatch] for task in sent]
        while len(claims) > CLAIMS_A_LINE:
            self.send(encode_line({"claim": claims[:CLAIMS_A_LINE], "journal": journal, "more": True}))
            del claims[:CLAIMS_A_LINE]
        self.send(encode_line({"claim": claims, "journal": journal}))
        for task in sent:
            if task.cancelling:
                self.cancel(task)

    def cancel(self, task: Task) -> None:
        """Have a task that was sent cancelled there; where the connection is lost, with the next claim."""
        if self.connection is not None:
            self.connection.outbox.put(encode_line({"id": task.label, "attempt": task.attempt, "cancel": True}))

    def look_back(self, rundir: RunDirectory) -> None:
        """It was of this machine, and is gone: find out how it ended. The end of its connection is seen first, the master's word comes a
        moment later, if there is a master; where it had no tasks, nobody wants to know."""
        until = time.monotonic() + END_WITHIN
        while self.tasks and not end_path(rundir.path, self.short_name, self.pid).exists():
            if time.monotonic() > until or not rundir.has_master():
                break
            gevent.sleep(0.01)
        self.remains = remains(rundir.path, self.short_name, self.pid)

    def ask(self) -> None:
        """Ask for a sign of life."""
        if self.connection is not None:
            self.asked_at = time.monotonic()
            self.connection.outbox.put(b'{"ping":%d,"vitals":true}\n' % (self.asked_at * 1e6))

    def answered(self, message: dict[str, Any]) -> None:
        """A sign of life: when it was asked for, and what it says of itself, where it is of a make that does."""
        asked, vitals = message["pong"], message.get("vitals")
        if type(asked) is int:
            self.round_trip = max(0.0, time.monotonic() - asked / 1e6)
        if type(vitals) is dict and type(memory := vitals.get("memory")) is int:
            self.memory = memory

    @property
    def lag(self) -> float:
        """Seconds that its event loop, and ours, take to come to a message; of one that does not answer, those that it was waited for."""
        waits = self.connection is not None and self.connection.heard_at < self.asked_at
        return max(self.round_trip, time.monotonic() - self.asked_at) if waits else self.round_trip

    def check(self, now: float) -> bool:
        """Whether it has become stale, or fresh again."""
        if self.connection is None or not self.asked_at:
            return False
        unanswered = self.connection.heard_at < self.asked_at
        stale = unanswered and now - self.asked_at > STALE_AFTER
        if not unanswered:
            self.asked_at = 0.0
        changed = stale != self.stale
        self.stale = stale
        return changed
