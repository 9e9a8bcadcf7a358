"""What clients ask of a gateway, and what is answered: submit, cancel, attach, list, describe. The rooms of the promise are joined here.

How it is kept: what happens to a task, and the commit before anybody is told, is `app/ledger.py`; what workers report, `app/reports.py`;
who they are, `app/pool.py`; whose turn it is, `app/fairness.py`; what lasts, `app/journal.py`.
"""

import time
from typing import Any

import gevent
from gevent.event import AsyncResult

from app import wire
from app.entrance import Credentials
from app.errors import Busy, DiskFull, HandoffError, IdConflict, RemoteError, TooLarge, Unavailable, UnknownFunction, UnknownTask
from app.journal import ANY, Journal, Listed, Wanted
from app.ledger import Ledger
from app.messages import Submit, new_id
from app.pool import Pool
from app.recovery import recover, write_down
from app.reports import Reports
from app.rundir import RunDirectory
from app.settings import Settings
from app.task import Task, Watcher, key_of
from app.tls import Files
from app.turn import Turn
from app.watchtower import Watchtower

MAX_LISTED = 1000
_HEAD = 512
"""Bytes of a worker's line that are not the arguments, at most."""


class Dispatcher:
    """Of one gateway process. `journal` keeps what is accepted; `turn` is the process's."""

    def __init__(self, settings: Settings, journal: Journal, turn: Turn) -> None:
        loop = gevent.get_hub().loop
        rundir = None if settings.pool else RunDirectory(settings.run_dir)
        self.journal = journal
        self._max_queue = settings.max_queue
        self._max_args = settings.max_line - _HEAD
        self._pool = Pool(journal.id, rundir, settings.pool, settings.hang_limit, turn, loop)
        self._credentials = Credentials(settings.secret, Files("--text", *settings.text_tls)).prepare(settings.pool)
        self._ledger = Ledger(journal, self._pool.places, turn, loop)
        self.watchtower = Watchtower(self._ledger, self._pool)
        self._draining = False

    def start(self) -> None:
        """Take up what an earlier process has left, and look for workers."""
        recover(self.journal, self._ledger, self._pool)
        self._pool.start(Reports(self._ledger, self._pool), self._credentials)
        self.watchtower.start()

    def wait_ready(self, timeout: float) -> bool:
        """Block until at least one worker is known; False after `timeout` seconds."""
        return bool(self._pool.met.wait(timeout))

    @property
    def unready(self) -> str:
        """Why nothing can be accepted and run now; empty where it can."""
        if self._draining:
            return "draining"
        if self.journal.full:
            return "the disk of the journal is full"
        if not any(link.can_be_sent_to for link in self._pool.links.values()):
            return "no worker answers"
        return ""

    def drain(self, timeout: float) -> bool:
        """Accept nothing more, send nothing more to the workers, and block until what they run has ended, and its end was told; False after
        `timeout` seconds."""
        self._draining = True
        self._ledger.hold()
        deadline = time.monotonic() + timeout
        while (busy := self._pool.places.taken or self._ledger.uncommitted) and time.monotonic() < deadline:
            gevent.sleep(0.02)
        return not busy

    @property
    def unfinished(self) -> int:
        """How many tasks are not over."""
        return len(self._ledger.live)

    def hold(self) -> None:
        """Send nothing more to the workers; what is accepted from now on waits."""
        self._ledger.hold()

    def hand_over(self, timeout: float) -> None:
        """As `stop`, but nothing is lost with this process: all that is not over is in the journal then. Commits are waited for, at most
        for `timeout` seconds."""
        self.watchtower.stop()
        self._pool.stop()  # what the workers say now is kept there for who comes next
        deadline = time.monotonic() + timeout
        while self._ledger.uncommitted and time.monotonic() < deadline:
            gevent.sleep(0.002)
        write_down(self.journal, self._ledger)
        self.journal.close()

    def stop(self) -> None:
        """Let go of the workers and of the journal."""
        self.watchtower.stop()
        self._pool.stop()
        self.journal.close()

    def submit(self, owner: str, lane: Any, submit: Submit, watcher: Watcher) -> Task | None:
        """Accept a task, or find the one that has this id already; None where that is over, and is to be read from the journal. While the
        journal has not confirmed it, the one that is found may be another than was asked for.

        `lane` is whoever takes turns with others. Raises a `Refusal` where it is not accepted; `watcher` hears of it otherwise.
        """
        args = wire.encode_decoded(submit.args) if submit.args is not None else b"{}"
        known = self._ledger.live.get(key_of(owner, submit.id))
        if known is not None:
            if known.kept and not known.same_content(submit.function, args):
                raise IdConflict(submit.id)
            return known
        self._check_room(submit.function)
        if len(args) > self._max_args:  # no worker would read the line: it would come back, and be sent, for ever
            raise TooLarge("the task's arguments", self._max_args)
        task = Task(owner, owner or lane, submit, args, self._ledger.next_order())
        offer = self._pool.places.offer(task.function)
        task.durable = offer.durable or task.key in self._ledger.taken_up  # sent again, it is found where it was written down
        if offer.retryable:
            task.attempts, task.backoff = offer.attempts, offer.backoff
        task.watchers.append(watcher)
        self._ledger.accept(task, submit.delay)
        return task

    def find(self, owner: str, task_id: str) -> Task | None:
        """The task, where it is not over; None where the journal has it. Raises `UnknownTask`."""
        key = key_of(owner, task_id)
        task = self._ledger.live.get(key)
        if task is None and self.journal.read(key, 0, 1) is None:
            raise UnknownTask(task_id)
        return task

    def cancel(self, owner: str, task_id: str) -> None:
        """Cancel a task; one that is over stays as it is. Raises `UnknownTask`."""
        task = self.find(owner, task_id)
        if task is not None and not self._ledger.cancel_queued(task):
            task.cancelling = True
            if task.sent:
                task.link.cancel(task)

    def list(self, owner: str, limit: int) -> list[dict[str, Any]]:
        """The owner's tasks, newest first."""
        return self.search(owner, limit).entries

    def search(self, owner: str, limit: int, wanted: Wanted = ANY) -> Listed:
        """Those of the owner's tasks that are asked for, newest first; there may be more even where fewer than `limit` are found."""
        live = self._ledger.live
        entries, before = self.journal.recent(owner, min(limit, MAX_LISTED), wanted)
        shown = [{**entry, **self.watchtower.show(task)} if (task := live.get(key_of(owner, entry["id"]))) else entry for entry in entries]
        return Listed([entry for entry in shown if wanted.wants(entry)], before)

    def describe(self) -> dict[str, Any]:
        """The catalogue of all workers together."""
        return {"functions": self._pool.catalogue()}

    def call(self, owner: str, function: str, args: Any = None, timeout: float | None = None) -> Any:
        """Run a task and return its result; blocks this greenlet. Raises `RemoteError` with the wire's code where it did not succeed,
        `Unavailable` after `timeout` seconds (the task goes on), and a `Refusal` where it was not accepted."""
        watcher = _Call()
        checked = wire.decode(wire.encode(args))  # what a handler passes is checked as what a client sends
        submit = Submit(new_id(), function, checked, final_only=True)
        self.submit(owner, watcher, submit, watcher)
        limit = gevent.Timeout(timeout)  # compared below: a handler may have one of its own around this
        try:
            with limit:
                final = wire.decode(watcher.line.get())
        except gevent.Timeout as late:
            if late is not limit:
                raise
            raise Unavailable(f"{function} did not end within {timeout:g} s; it goes on as {submit.id}") from None
        if final["event"] != "succeeded":
            raise RemoteError(**final["error"])
        return final["result"]

    def _check_room(self, function: str) -> None:
        if self.journal.full:
            raise DiskFull
        if self._draining:
            raise Busy("this gateway is leaving; send it again in a moment, with the same id", 1.0)
        if not self._pool.places.knows(function):
            if not self._pool.met.is_set():
                raise Unavailable("no worker has been met yet; start one, and send it again with the same id", retry_after=1.0)
            raise UnknownFunction(function)
        if self._ledger.waiting >= self._max_queue:
            wait = self._ledger.figures.wait_at(self._max_queue // 10)  # until there is room that is worth coming back for
            raise Busy(f"{self._max_queue} tasks are queued here already", round(min(max(wait or 1.0, 0.5), 60.0), 1))


class _Call:
    """Waits for the one final event."""

    def __init__(self) -> None:
        self.line: AsyncResult[bytes] = AsyncResult()

    def deliver(self, seq: int, line: bytes, final: bool) -> None:
        """Only the end counts."""
        if final:
            self.line.set(line)

    def already_known(self) -> None:
        """The id is fresh, so this cannot be."""
        self.line.set_exception(IdConflict("a fresh id"))

    def refused(self, error: HandoffError) -> None:
        """It could not be kept."""
        self.line.set_exception(error)
