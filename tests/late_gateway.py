"""The gateway's role with a journal whose commits come late, in a process that watches what leaves it.

As `run.py gateway`, with flags of its own before the others: `--longest` seconds that a commit takes, `--seed` of that chance, `--lease` of
a silent worker. What leaves before the commit that must precede it is logged as `promise-broken`; what was checked is counted in the log.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import functools  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from typing import Any  # noqa: E402

import run  # noqa: E402
from app import pool  # noqa: E402
from app.child import Child  # noqa: E402
from app.gateway import server, websocket  # noqa: E402
from app.journal import Kind, MemoryJournal, Record, Refused  # noqa: E402
from app.link import Link  # noqa: E402
from app.settings import Settings  # noqa: E402
from app.task import Key, key_of  # noqa: E402
from tests.counters import check_counters  # noqa: E402
from tests.journals import DelayedJournal  # noqa: E402

log = logging.getLogger(__name__)


class Audit:
    """Compares what leaves with what is in the journal. Only for tasks without an owner, and one gateway in the process."""

    def __init__(self, longest: float, seed: int) -> None:
        self._longest = longest
        self._seed = seed
        self._inner: Any = None
        self._dispatched: Counter[tuple[Key, int]] = Counter()
        self._checked: Counter[str] = Counter()
        self._pools: list[pool.Pool] = []

    def watch(self, found: pool.Pool) -> None:
        """These are the links of this process."""
        self._pools.append(found)

    def count(self) -> None:
        """Whether the counters of the slots say what is there."""
        try:
            for found in self._pools:
                check_counters(found.places, found.links.values())
        except AssertionError:
            log.exception("promise-broken: a counter has drifted")

    def open(self, journal_id: str) -> "LateJournal":
        """The journal of this process."""
        self._inner = MemoryJournal(journal_id)
        return LateJournal(self._inner, self._seed, self._longest, self)

    def dispatched(self, key: Key, attempt: int) -> None:
        """It is in the journal that this attempt may be sent."""
        self._dispatched[key, attempt] += 1

    def to_worker(self, line: bytes) -> None:
        """A line is about to leave for a worker."""
        message = json.loads(line)
        if "function" in message:
            self._check("dispatch", self._dispatched[key_of("", message["id"]), message["attempt"]] > 0, line)

    def to_client(self, frame: bytes) -> None:
        """A message is about to leave for a client."""
        message = json.loads(frame) if frame.startswith(b"{") else {}  # else the control frames
        if "event" in message:
            stored = self._inner.read(key_of("", message["id"]), message["seq"] - 1, 1)
            self._check(message["event"], stored is not None and stored.events[:1] == [(message["seq"], frame, stored.events[0][2])], frame)

    def _check(self, what: str, kept: bool, line: bytes) -> None:
        self._checked[what] += 1
        if not kept:
            log.error("promise-broken: this left before its commit: %s", line.decode())
        if sum(self._checked.values()) % 100 == 0:
            log.info("promise-checked: %s", json.dumps(self._checked))


class LateJournal(DelayedJournal):
    """Tells the audit what has been committed, the moment before anybody else hears of it."""

    def __init__(self, inner: MemoryJournal, seed: int, longest: float, audit: Audit) -> None:
        super().__init__(inner, seed, longest)
        self._audit = audit

    def commit(self, records: Sequence[Record], done: Callable[[Refused], None]) -> None:
        """As `Journal.commit`."""
        attempts = [(task.key, task.attempt) for kind, task, *_ in records if kind is Kind.DISPATCH and task is not None]
        super().commit(records, functools.partial(self._completed, attempts, done))
        self._audit.count()

    def _completed(self, attempts: list[tuple[Key, int]], done: Callable[[Refused], None], refused: Refused) -> None:
        for key, attempt in attempts:
            if key not in refused:
                self._audit.dispatched(key, attempt)
        done(refused)


def _watched(original: Callable[..., None], check: Callable[[bytes], None]) -> Callable[..., None]:
    """A method that sends, with a look at what it is given."""

    @functools.wraps(original)
    def send(self: Any, data: bytes, *others: Any) -> None:
        check(data)
        original(self, data, *others)

    return send


def _met(original: Callable[..., None], watch: Callable[[pool.Pool], None]) -> Callable[..., None]:
    """A pool's start, with a word of which it is."""

    @functools.wraps(original)
    def start(self: pool.Pool, *others: Any) -> None:
        watch(self)
        original(self, *others)

    return start


def main(argv: Sequence[str]) -> int:
    """Run the role; the exit code."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name, kind, default in (("--longest", float, 0.0), ("--seed", int, 0), ("--lease", float, pool.LEASE)):
        parser.add_argument(name, type=kind, default=default)
    own, others = parser.parse_known_args(argv)
    audit = Audit(own.longest, own.seed)
    pool.LEASE = own.lease
    setattr(server, "MemoryJournal", audit.open)  # noqa: B010 - in the place of a class
    setattr(pool.Pool, "start", _met(pool.Pool.start, audit.watch))  # noqa: B010
    setattr(Link, "send", _watched(Link.send, audit.to_worker))  # noqa: B010
    setattr(websocket.Connection, "queue", _watched(websocket.Connection.queue, audit.to_client))  # noqa: B010
    setattr(run, "run_gateway", _serve)  # noqa: B010
    return run.main(["gateway", "--durability", "off", *others])


def _serve(chosen: Settings, child: Child) -> None:
    server.serve(chosen, child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
