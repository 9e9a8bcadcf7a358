"""The tasks that one connection is shown: live where it keeps up, and read again from the journal as its socket drains where it does not.

What its messages mean is in `app/gateway/session.py`; how one HTTP request follows a task, in `app/gateway/follow.py`.
"""

import logging
from collections import deque
from typing import Final

import gevent

from app.dispatch import Dispatcher
from app.errors import DiskFull, HandoffError, IdConflict, Unavailable, UnknownTask
from app.gateway.websocket import Connection
from app.journal import Said, Stored
from app.messages import Submit, refusal
from app.task import Task, asks_for, key_of

log = logging.getLogger(__name__)

REPLAY_AT_ONCE: Final = 200
"""Events read from the journal at a time while a task is shown again."""

_ASK_AGAIN: Final = 0.005


class Watch:
    """One task as one connection sees it. `seen` is the number of the last event that was sent; while it is not `live`, events are not
    taken as they come but read from the journal."""

    __slots__ = ("final_only", "id", "live", "seen", "session", "submit", "task")

    def __init__(self, session: "Shown", task_id: str, *, final_only: bool = False, seen: int = 0, submit: Submit | None = None) -> None:
        self.session = session
        self.id = task_id
        self.final_only = final_only
        self.seen = seen
        self.live = True
        self.submit = submit
        self.task: Task | None = None

    def deliver(self, seq: int, line: bytes, final: bool) -> None:
        """As `Watcher.deliver`; to a reader that is behind, or was shown nothing of what came before, only once it has caught up."""
        if not self.live or seq <= self.seen:
            return
        session = self.session
        if session.outbox.unsent > session.half_full or (seq > self.seen + 1 and not self.final_only):
            session.catch_up(self)
            return
        self.seen = seq
        if final:
            session.watches.pop(self.id, None)
            session.queue(line)
        elif not self.final_only:
            session.queue(line)

    def already_known(self) -> None:
        """As `Watcher.already_known`: show what the journal has, if it is the same task."""
        self.task = None
        self.session.catch_up(self)

    def refused(self, error: HandoffError) -> None:
        """As `Watcher.refused`."""
        self.task = None
        self.session.refuse(self, error)


class Shown:
    """What a connection of this owner is shown. `watches` are the tasks that are not over, by id; `half_full` is in bytes."""

    __slots__ = ("_behind", "_connection", "_dispatcher", "half_full", "outbox", "owner", "queue", "watches")

    def __init__(self, dispatcher: Dispatcher, connection: Connection, owner: str, max_unsent: int) -> None:
        self._dispatcher = dispatcher
        self._connection = connection
        self.owner = owner
        self.outbox = connection.outbox
        self.queue = connection.queue
        self.half_full = max_unsent // 2
        self.watches: dict[str, Watch] = {}
        self._behind: deque[Watch] | None = None

    def catch_up(self, watch: Watch) -> None:
        """Show it from the journal, as the socket drains, until it is up to date."""
        watch.live = False
        if self._behind is None:
            self._behind = deque()
            gevent.spawn(self._catch_up, self._behind)
        self._behind.append(watch)

    def _catch_up(self, behind: deque[Watch]) -> None:
        try:  # in a greenlet that exists only while there is something to show again
            while behind:
                watch = behind.popleft()
                try:
                    self._replay(watch)
                except DiskFull as error:  # the journal has no room to put it in order
                    self.refuse(watch, error)
        except Unavailable:
            log.debug("the connection is over; its tasks are not", extra={"connection": self._connection.id})
        finally:
            self._behind = None

    def _replay(self, watch: Watch) -> None:
        """Show what the journal has; then take events as they come. Between the last read and that, nothing may be missed."""
        while True:
            self.outbox.wait_below(self.half_full)
            was_kept = watch.task is None or watch.task.kept > 0
            stored = self._dispatcher.journal.read(key_of(self.owner, watch.id), watch.seen, REPLAY_AT_ONCE)
            if stored is None and was_kept:
                self.refuse(watch, UnknownTask(watch.id))  # forgotten meanwhile
                return
            if stored is None and _contends(watch):
                gevent.sleep(_ASK_AGAIN)
                continue
            if stored is not None and watch.submit is not None and not wants(watch.submit, stored):
                self.refuse(watch, IdConflict(watch.id))
                return
            for said in stored.events if stored is not None else ():
                self.outbox.wait_below(self.half_full)
                self._show_again(watch, said)
            if _is_up_to_date(watch, stored):
                watch.live = True
                return

    def refuse(self, watch: Watch, error: HandoffError) -> None:
        """There is nothing to show: say why, and watch it no longer."""
        self.queue(refusal(error, watch.id))
        if self.watches.get(watch.id) is watch:
            del self.watches[watch.id]

    def _show_again(self, watch: Watch, said: Said) -> None:
        watch.seen, line, final = said
        if final or not watch.final_only:
            self.queue(line)
        if final:
            self.watches.pop(watch.id, None)

    def unwatch(self, watch: Watch) -> None:
        """Show no more of it."""
        del self.watches[watch.id]
        watch.live = False
        if watch.task is not None and watch in watch.task.watchers:
            watch.task.watchers.remove(watch)


def _is_up_to_date(watch: Watch, stored: Stored | None) -> bool:
    """Whether there is nothing more to read; where nothing is stored, the first commit is still to come."""
    if stored is not None and (len(stored.events) == REPLAY_AT_ONCE or stored.final or watch.task is None):
        return len(stored.events) < REPLAY_AT_ONCE
    return watch.task is None or watch.task.kept <= watch.seen


def _contends(watch: Watch) -> bool:
    """Whether it asks for something else than the task that came first, which the journal has not confirmed yet."""
    return watch.task is not None and watch.submit is not None and not wants(watch.submit, watch.task)


def wants(submit: Submit, stored: Stored | Task) -> bool:
    """Whether this is the task that was submitted."""
    return asks_for(submit, stored.function, stored.args)
