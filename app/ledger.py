"""The tasks that are not over, the queue they wait in, and what happened to them in this turn: committed as one batch at its end.

Memory leads: a state changes the moment something happens. What leaves this process because of it (an event to a client, a line to a
worker, an acknowledgement) follows the commit. Who asked and why is not known here.
"""

import itertools
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from app.errors import Cancelled, HandoffError
from app.fairness import FairQueue
from app.figures import Figures
from app.journal import Journal, Kind, Record, Refused
from app.link import Link, LinkConnection
from app.messages import Event, State, accepted_line, ending_line, event_line
from app.places import Places
from app.sending import Sending
from app.task import Key, Task
from app.turn import Turn

log = logging.getLogger(__name__)


class Ledger:
    """Of one gateway process. `observer`, where somebody watches, is told of every commit: its records, and what of them was refused."""

    def __init__(self, journal: Journal, places: Places, turn: Turn, loop: Any) -> None:
        self.journal = journal
        self.live: dict[Key, Task] = {}
        self.taken_up: frozenset[Key] = frozenset()
        """Those that an earlier process has left, over or not: they are on the disk, whatever their functions declare."""
        self.queue = FairQueue()
        self.figures = Figures()
        self.observer: Callable[[list[Record], Refused], None] | None = None
        self.next_order = itertools.count(journal.first_order).__next__
        self._next_dispatch = itertools.count(int(journal.now() * 1e6)).__next__  # higher than any before, also after a restart
        self._places = places
        self._sending = Sending(places, self.put_back, loop)
        self._turn = turn
        self._loop = loop
        self._batch: list[Record] = []
        self._timers: dict[Task, Any] = {}
        self._turn_due = False
        self._holding = False
        self.uncommitted = 0
        """Commits that are not complete."""
        journal.on_room(self.turn)

    @property
    def waiting(self) -> int:
        """How many tasks wait for a place, or for their time."""
        return self.queue.size + len(self._timers)

    def hold(self) -> None:
        """From now on nothing is placed: this process is about to leave."""
        self._holding = True
        self._sending.give_up()

    # What happens to a task. Each of these leaves a record, and the records of one turn are one commit.

    def accept(self, task: Task, delay: float = 0.0) -> None:
        """A new task: to be kept, then queued (after `delay` seconds, where there is one)."""
        task.position = self.queue.size
        self.live[task.key] = task
        self._record((Kind.ACCEPT, task, 0, b"", False, None))
        if not task.final_only:
            self._record((Kind.EVENT, task, 1, accepted_line(task.id, task.position), False, None))
        if delay:
            self._wait(delay, task)
        else:
            self._queue(task)

    def restore(self, task: Task) -> None:
        """A task that an earlier process has left, and that no worker has: let it wait again, for its time or for a place."""
        if task.due > self.journal.now():
            self._wait(task.due - self.journal.now(), task)
        else:
            self._become_due(task)

    def said(self, task: Task, seq: int, line: bytes, final: bool, connection: LinkConnection) -> None:
        """An event that a worker reported; `task` has its new state already."""
        task.seq = seq
        self._record((Kind.EVENT, task, seq, line, final, connection))

    def note(self, connection: LinkConnection) -> None:
        """A line of a worker that says nothing to keep; it must be acknowledged in its turn all the same."""
        self._record((Kind.NOTE, None, 0, b"", False, connection))

    def end(self, task: Task, event: Event, error: HandoffError) -> bool:
        """End a task from here; False where it may not end so now."""
        if not task.advance(event):
            return False
        self._leave_queue(task)
        if task.link is not None:
            self.release(task)
        task.seq += 1
        self._record((Kind.EVENT, task, task.seq, ending_line(task.id, event, task.seq, task.attempt, error), True, None))
        return True

    def retry(self, task: Task, after: float, error: HandoffError) -> None:
        """Say, from here, that it will be tried again, and do so after that many seconds."""
        if task.advance(Event.RETRYING):
            task.seq += 1
            line = event_line(task.id, Event.RETRYING, task.seq, task.attempt, after=round(after, 3), error=error.as_wire())
            self._record((Kind.EVENT, task, task.seq, line, False, None))
            self.retry_later(task, after)

    def retry_later(self, task: Task, after: float) -> None:
        """It is `RETRYING`: give its slot back, and queue it again after that many seconds."""
        self.figures.retried += 1
        if task.link is not None:
            self.release(task)
        if not task.cancelling or not self.cancel_queued(task):
            self._later(after, task)

    def put_back(self, task: Task) -> None:
        """It never began where it was sent to: queue it again in its old place; that was no attempt."""
        if task.advance(Event.RETURNED):
            task.attempt -= 1
            self.release(task)
            self._record((Kind.MOVE, task, 0, b"", False, None))
            if not task.cancelling or not self.cancel_queued(task):
                self._queue(task)

    def release(self, task: Task) -> None:
        """It is over there, and its slot is free."""
        self._places.give(task)
        self._sending.released(task)
        if not self._turn_due:
            self.turn()

    def cancel_queued(self, task: Task) -> bool:
        """Cancel it where no worker has it. While the journal has not said that it is new, nothing may be recorded of it: then once it
        has."""
        if task.link is not None:
            return False
        task.cancelling = True
        self._leave_queue(task)
        if task.kept:
            self.end(task, Event.CANCELLED, Cancelled("cancelled before it began" if task.attempt == 0 else "cancelled, not tried again"))
        return True

    def turn(self) -> None:
        """Something changed: at the end of this turn see who can be placed, and commit."""
        if not self._turn_due:
            self._turn_due = True
            self._sending.age()
            self._turn.add(self._end_turn)

    # The queue.

    @property
    def _stands_still(self) -> bool:
        return self._holding or self.journal.full

    def _queue(self, task: Task) -> None:
        """Let it wait; where nobody else does and there is a place, it need not."""
        if not self.queue.size and not self._stands_still and (link := self._places.find(task.function)) is not None:
            self._place(task, link)
        else:
            task.queued = True
            self.queue.push(task)
        self.turn()

    def _place(self, task: Task, link: Link) -> None:
        if task.queued:
            task.queued = False
            task.since = self.figures.waited(task.since)
        else:
            self.figures.waits.counts[0] += 1  # placed as soon as it came
        task.advance(Event.DISPATCHED)
        task.attempt += 1
        task.dispatch = self._next_dispatch()
        self._places.take(task, link)
        self._batch.append((Kind.DISPATCH, task, 0, b"", False, link))

    def _leave_queue(self, task: Task) -> None:
        if task.queued:
            task.queued = False
            self.queue.drop()
        elif task in self._timers:
            self._timers.pop(task).close()

    def _later(self, seconds: float, task: Task) -> None:
        self._wait(seconds, task)
        self._record((Kind.MOVE, task, 0, b"", False, None))

    def _wait(self, seconds: float, task: Task) -> None:
        task.due = self.journal.now() + seconds
        timer = self._timers[task] = self._loop.timer(seconds)
        timer.start(self._due, task)

    def _due(self, task: Task) -> None:
        self._timers.pop(task).close()
        self._become_due(task)

    def _become_due(self, task: Task) -> None:
        task.since = time.time()
        if task.state is State.RETRYING:
            task.advance(Event.DUE)
        self._queue(task)

    # The end of a turn.

    def _record(self, record: Record) -> None:
        self._batch.append(record)
        if not self._turn_due:
            self.turn()

    def _end_turn(self) -> None:
        try:
            self._fill()
        finally:  # whatever happens there, what is recorded is committed, and there is another turn
            self._turn_due = False
            if self._batch:
                batch, self._batch = self._batch, []
                self.uncommitted += 1
                self.journal.commit(batch, partial(self._committed, batch, self._places.ended))

    def _fill(self) -> None:
        """Place whoever can be placed: from the queue onto a worker."""
        if self._stands_still:
            return
        queue, places = self.queue, self._places
        for function in queue.held_back:
            queue.wake(function, places.room(function))
        while (found := queue.pop(places.find)) is not None:
            self._place(*found)

    # After the commit.

    def _committed(self, batch: list[Record], ended: int, refused: Refused) -> None:
        self.uncommitted -= 1
        self._sending.learn(self._places.ended - ended)
        acknowledging = set()
        for kind, task, seq, line, final, link in batch:
            if refused and task is not None and task.key in refused:
                if kind is Kind.ACCEPT:
                    self._refused(task, refused[task.key])
                continue
            if kind is Kind.DISPATCH:
                self._sending.send(task, link)
                continue
            if kind is Kind.EVENT:
                self._show(task, seq, line, final)
            elif kind is Kind.ACCEPT:
                self._accepted(task)
            if link is not None:
                link.to_ack += 1
                acknowledging.add(link)
        for connection in acknowledging:
            connection.acknowledge()
        if self.observer is not None:
            self.observer(batch, refused)

    def _accepted(self, task: Any) -> None:
        task.kept = 1
        self.figures.accepted += 1
        if task.cancelling:
            self.cancel_queued(task)

    def _show(self, task: Any, seq: int, line: bytes, final: bool) -> None:
        task.kept = seq
        for watcher in task.watchers:
            try:
                watcher.deliver(seq, line, final)
            except Exception:  # the barrier of one watcher: all others of this commit are told, and what is to be sent is sent
                log.exception("watcher-failed", extra={"task": task.id})
        if final:
            task.watchers.clear()
            del self.live[task.key]
            task.ended_at = self.figures.ended(task.function, task.state.value, task.since if task.attempt else None)

    def _refused(self, task: Task, why: HandoffError | None) -> None:
        """It is no task: the journal cannot keep it, or has had this key before, and whoever submitted it is shown the old one."""
        self._leave_queue(task)
        task.state = State.CANCELLED
        if task.link is not None:
            self.release(task)
        if self.live.get(task.key) is task:
            del self.live[task.key]
        watchers, task.watchers = task.watchers, []
        for watcher in watchers:
            if why is None:
                watcher.already_known()
            else:
                watcher.refused(why)
