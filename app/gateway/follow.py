"""One task as one HTTP request follows it: what was said of it, read from the journal and then taken as it comes, without a gap.

The greenlet of the request asks, and may block as long as it likes: nothing is kept for it beyond a bound. How a WebSocket is shown its
tasks is in `app/gateway/session.py`.
"""

from typing import Final

from gevent.event import Event

from app.errors import HandoffError, IdConflict, UnknownTask
from app.journal import Journal, Said, Stored
from app.messages import Submit
from app.task import Task, asks_for, key_of

MOST_HELD: Final = 64 * 1024
"""Bytes of events that wait for a request that does not ask for them; past that they are read from the journal again."""

READ_AT_ONCE: Final = 100
"""Most events that are read from the journal at a time. The first read is of a few, and so is every one after large ones: a slow reader
keeps hold of what was read for it."""

_A_FEW: Final = 4

_ASK_AGAIN: Final = 0.005


class Follower:
    """A `Watcher` for one greenlet. `seen` is the number of the last event that it was given; `over`: nothing will follow.

    Events that come are held, in order; `_behind` says that some before them are to be read from the journal first. It is set at the
    start, and where more came than may be held.
    """

    def __init__(self, journal: Journal, owner: str, task_id: str) -> None:
        self._journal = journal
        self._key = key_of(owner, task_id)
        self._held: list[Said] = []
        self._size = 0
        self._behind = True
        self._at_once = _A_FEW
        self._woken = Event()
        self._error: HandoffError | None = None
        self.id = task_id
        self.seen = 0
        self.over = False
        self.task: Task | None = None

    # As a `Watcher`, in the hub.

    def deliver(self, seq: int, line: bytes, final: bool) -> None:
        """As `Watcher.deliver`."""
        if self._size + len(line) > MOST_HELD:
            self._fall_behind()
        else:
            self._held.append((seq, line, final))
            self._size += len(line)
        self._woken.set()

    def already_known(self) -> None:
        """As `Watcher.already_known`."""
        self.task = None
        self._fall_behind()
        self._woken.set()

    def refused(self, error: HandoffError) -> None:
        """It could not be kept, so it was not accepted after all."""
        self.task = None
        self._error = error
        self._woken.set()

    def _fall_behind(self) -> None:
        self._behind = True
        self._held.clear()
        self._size = 0

    # For the greenlet.

    def follow(self, task: Task | None, after: int = 0) -> None:
        """Follow this task, or what the journal has of it, from the event after that number. Whatever it is said to have seen of a task
        that is not over, the end is still to come."""
        self.seen = min(after, task.seq) if task is not None and task.kept else after
        self.task = task
        if task is not None and self not in task.watchers:
            task.watchers.append(self)

    def confirm(self, submit: Submit, own: bool) -> Task | Stored:
        """Block until the journal has the task that was submitted: it, or the one that had its id before. `own`: it was submitted here.

        Raises `IdConflict` where that is another one, and the `Refusal` where it was not kept.
        """
        self.settle(own)
        if self._error is not None:
            raise self._error
        known = self.task or self._journal.read(self._key, 0, 1)
        if known is None:
            raise UnknownTask(self.id)
        if (not own or self.task is None) and not asks_for(submit, known.function, known.args):
            raise IdConflict(self.id)
        return known

    def settle(self, own: bool = False) -> None:
        """Block until the journal has said what becomes of the submit. Of another's nobody may tell us: its watcher may want the end
        alone."""
        while self.task is not None and not self.task.kept:
            self._woken.wait(None if own else _ASK_AGAIN)
            self._woken.clear()

    def read(self) -> list[Said]:
        """The events after `seen`, as many as there are at once: none where there is nothing new. Blocks for the journal alone."""
        self._woken.clear()
        if self._error is not None:
            raise self._error
        if self._behind:
            said = self._catch_up()
        else:
            said = [event for event in self._held if event[0] > self.seen]
            self._held.clear()
            self._size = 0
        if said:
            self.seen, _, final = said[-1]
            self.over = self.over or final
        return said

    def _catch_up(self) -> list[Said]:
        """Whoever holds events from before the read leaves them to it; what comes while it reads is held, and told apart by number."""
        self._fall_behind()
        self._behind = False
        kept = self.task is None or self.task.kept > 0
        most = self._at_once
        stored = self._journal.read(self._key, self.seen, most)
        if stored is None:
            if kept:
                raise UnknownTask(self.id)  # forgotten meanwhile
            return []
        small = sum(len(line) for _, line, _ in stored.events) < MOST_HELD
        self._at_once = min(2 * most, READ_AT_ONCE) if small else 1
        if len(stored.events) == most:
            self._behind = True
        elif stored.final or self.task is None:
            self.over = True
        return stored.events

    def wait(self, timeout: float) -> bool:
        """Block until there may be something to read; False after `timeout` seconds."""
        return self._behind or bool(self._woken.wait(timeout))

    def end(self) -> None:
        """Nothing more is wanted: whoever waits here goes on. May be called in the hub."""
        self.over = True
        self._woken.set()

    def close(self) -> None:
        """Watch no more."""
        if self.task is not None and self in self.task.watchers:
            self.task.watchers.remove(self)
        self.task = None
