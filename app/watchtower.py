"""Who watches the gateway, and what they see: its figures, its workers, and what changes of their own tasks, a few times a second.

Nothing here is on a task's way: with nobody watching, a sample a second is all that is done. A feed is of one watcher; it is asked to push,
and what it does not take is coalesced, not queued. The messages themselves are `app/gateway/watch.py`'s.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import gevent

from app.figures import Sample
from app.journal import Kind, Record, Refused
from app.ledger import Ledger
from app.link import Link
from app.log import untold
from app.messages import State
from app.outbox import Outbox
from app.pool import Pool
from app.task import Task

log = logging.getLogger(__name__)

PUSH_EVERY = 0.25
"""Seconds between two pushes to those who watch."""

RUNNING_SHOWN = 50
"""Tasks of one worker that are named, those that have run longest; the others are counted."""

_SLOW_BEATS = 4
_WAITING = frozenset({State.QUEUED, State.RETRYING})


class Feed(Protocol):
    """Somebody who watches. `owner`: whose tasks."""

    owner: str

    def changed(self, task: Task) -> None:
        """Something was said of a task, and is in the journal. Called in the hub: must not block, and takes note of the task alone."""

    def push(self, seconds: bool) -> None:
        """It is time to tell; `seconds`: the figures and the workers too. Must not block."""


class Watchtower:
    """Of one gateway process."""

    def __init__(self, ledger: Ledger, pool: Pool) -> None:
        self._ledger = ledger
        self._pool = pool
        self._feeds: dict[str, list[Feed]] = {}
        self._greenlets: list[Any] = []

    def start(self) -> None:
        """Take a sample each second from now on."""
        self._greenlets = [gevent.spawn(self._beat)]

    def stop(self) -> None:
        """No more of it."""
        gevent.killall(self._greenlets)

    def add(self, feed: Feed) -> None:
        """From now on it is told."""
        self._feeds.setdefault(feed.owner, []).append(feed)
        self._ledger.observer = self._saw

    def remove(self, feed: Feed) -> None:
        """It watches no longer."""
        feeds = self._feeds[feed.owner]
        feeds.remove(feed)
        if not feeds:
            del self._feeds[feed.owner]
        if not self._feeds:
            self._ledger.observer = None

    def unfinished(self, owner: str) -> list[Task]:
        """The owner's tasks that are in the journal and not over, in the order in which they were accepted; those that run first."""
        own = [task for task in list(self._ledger.live.values()) if task.owner == owner and task.kept]
        return sorted(own, key=lambda task: task.state in _WAITING)

    @property
    def samples(self) -> Sequence[Sample]:
        """Those of the last minutes, a second each."""
        return self._ledger.figures.samples

    def figures(self) -> dict[str, Any]:
        """What has been counted since the start of this gateway, and how much is here now."""
        ledger = self._ledger
        counted = {"accepted": ledger.figures.accepted, "finished": ledger.figures.finished}
        return {**counted, "queued": ledger.queue.size, "unfinished": len(ledger.live)}

    def look(self) -> tuple[dict[str, float], dict[str, Any]]:
        """For the scoreboard: the figures of now, and all that is counted. The oldest of those that wait is the first that was accepted."""
        ledger, pool = self._ledger, self._pool
        now: dict[str, float] = {"queued": ledger.queue.size, "unfinished": len(ledger.live), "running": pool.places.taken}
        now["workers"] = sum(link.can_be_sent_to for link in pool.links.values())
        if ledger.queue.size:
            now["waits_since"] = next((task.since for task in ledger.live.values() if task.queued), time.time())
        return now, {**ledger.figures.tree(), "reconnects": pool.reconnects}

    def connections(self) -> list[tuple[Outbox, str]]:
        """Those to the workers, with their names."""
        return [(link.connection.outbox, link.short_name) for link in self._pool.met_links() if link.connection is not None]

    def workers(self, owner: str) -> list[dict[str, Any]]:
        """The workers, with what each runs: how many of each function, and of the owner's own, by id, those that have run longest."""
        return [_worker(link, owner) for link in self._pool.met_links()]

    def show(self, task: Task) -> dict[str, Any]:
        """A task as `list` and `watch` show it: where it waits, its `position` in the queue and, where that can be estimated, the `wait`
        until its turn in seconds, or the time from which it may have it (`due_at`)."""
        entry = task.describe()
        if task.queued:
            entry["position"] = position = self._ledger.queue.position(task)
            if (wait := self._ledger.figures.wait_at(position)) is not None:
                entry["wait"] = round(wait, 1)
        elif task.state in _WAITING and (left := task.due - self._ledger.journal.now()) > 0:
            entry["due_at"] = round(time.time() + left, 3)
        return entry

    def _saw(self, batch: Sequence[Record], refused: Refused) -> None:
        feeds = self._feeds
        for kind, task, *_ in batch:
            if task is None or kind is Kind.NOTE or task.key in refused:
                continue
            for feed in feeds.get(task.owner, ()):
                feed.changed(task)

    def _beat(self) -> None:
        beat, due = 0, time.monotonic()
        while True:
            beat, due = beat + 1, max(due + PUSH_EVERY, time.monotonic())
            gevent.sleep(max(0.0, due - time.monotonic()))
            seconds = beat % _SLOW_BEATS == 0
            if seconds:
                self._ledger.figures.sample(self._ledger.queue.size, len(self._ledger.live))
            for feed in [feed for feeds in self._feeds.values() for feed in feeds]:
                self._push(feed, seconds)

    def _push(self, feed: Feed, seconds: bool) -> None:
        try:
            feed.push(seconds)
        except Exception as error:  # the barrier of one watcher: the others are told all the same
            log.error("push-failed", exc_info=untold(error))


def _worker(link: Link, owner: str) -> dict[str, Any]:
    runs: dict[str, int] = {}
    for task in link.tasks.values():
        runs[task.function] = runs.get(task.function, 0) + 1
    longest = sorted(link.tasks.values(), key=lambda task: task.since)[:RUNNING_SHOWN]
    tasks = [
        {"function": task.function, "since": round(task.since, 3), **({"id": task.id} if task.owner == owner else {})} for task in longest
    ]
    used = {"used": link.running, "slots": link.slots, "used_processes": link.used_processes, "process_slots": link.process_slots}
    connected = link.connection is not None
    how = {"connected": connected, "silent": link.stale, "lag": round(link.lag, 4), "memory": link.memory}
    return {"name": link.short_name, "pid": link.pid, **used, **how, "runs": runs, "tasks": tasks}
