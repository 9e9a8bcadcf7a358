"""A gateway as a worker knows it: by its journal's id, not by its connection. Its tasks run on when the connection is lost, and what was
said of them is kept until it is acknowledged, or too old, or too much.

A task that is claimed and not here never came, was sent back unbegun, or was here once. In the first two cases it has not begun, and that
is said. The numbers of the dispatches tell them from the third: they come in rising order, so what is above the last one has not come.

What the lines say is made in `workers/attempt.py`; the connection that carries them is in `workers/connection.py`.
"""

import logging
import math
import time
from collections import deque
from typing import Any

from app.errors import BadRequest, Busy, HandoffError, UnknownTask
from app.labels import check_label
from app.messages import FINAL_STATES, Event, State, ending_line, event_line, final_line
from app.outbox import Outbox
from app.wire import encode_line
from workers.attempt import Attempt
from workers.dispatches import Dispatches
from workers.sinks import FAR_BEHIND

log = logging.getLogger(__name__)

KEPT_FOR = 600.0
"""Seconds for which events are kept after the connection was lost."""

KEPT_BYTES = 8 * 1024 * 1024

MOST_CLAIMS = 1_000_000
MOST_JOURNALS = 1000
MOST_RETURNED = 10_000
"""So many of the last tasks that were sent back unbegun are remembered, for each gateway."""

Claim = tuple[str, int, int, int]
"""A task that a gateway believes to be here: id, attempt, the number of its last event that is in the journal, that of its dispatch."""

Key = tuple[str, int]


class Claimant:
    """The sink of all tasks that one gateway sent. `attempts` holds those that run, or whose end it has not acknowledged; `dispatches`
    remembers what came, above a number below which nothing is known."""

    def __init__(self, journal: str, floor: float) -> None:
        self.journal = journal
        self.dispatches = Dispatches(floor)
        self._returned: dict[Key, None] = {}
        self.attempts: dict[Key, Attempt] = {}
        self._outbox: Outbox | None = None
        self._sent: deque[Attempt | None] = deque()
        self._lost_at = 0.0
        self._kept = 0
        self.parting = False

    def attach(self, outbox: Outbox, claims: list[Claim]) -> None:
        """A new connection of this gateway; what is still read from the one before counts no more. `claims` lists what it believes to be
        here: whatever came after `seq` is said again; what never began is returned; what is not here any more is refused with
        `unknown_task`; what is not listed is nobody's."""
        said, self._outbox = set(map(id, self._sent)), outbox  # an end that was said, and is not claimed, is in the journal most likely
        self._sent.clear()
        for key in self.attempts.keys() - {(task_id, attempt) for task_id, attempt, _, _ in claims}:
            if _over(self.attempts[key]):
                level = logging.INFO if id(self.attempts[key]) in said else logging.WARNING
                log.log(level, "report-refused: attempt %d: its gateway does not wait for it", key[1], extra={"task": key[0]})
            self._disown(key)
        for task_id, number, seq, dispatch in claims:
            attempt = self.attempts.get((task_id, number))
            if attempt is not None:
                self._say_again(attempt, seq)
            elif self.dispatches.never_came(dispatch) or (task_id, number) in self._returned:
                self.has_returned(task_id, number)  # the number may be forgotten, and this claimed once more
                outbox.put(event_line(task_id, Event.RETURNED, seq, number) + b"\n")
            else:
                outbox.put(encode_line({"id": task_id, "attempt": number, "error": UnknownTask(task_id).as_wire()}))
        self._kept = 0

    def speaks_on(self, outbox: Outbox) -> bool:
        """Whether this is the gateway's last connection. On one before it nothing may be begun: the gateway has been told that it was
        not."""
        return self._outbox is outbox

    def has_returned(self, task_id: str, attempt: int) -> None:
        """It is sent back unbegun: whoever claims it, because that line was lost, is told so again."""
        self._returned[task_id, attempt] = None
        if len(self._returned) > MOST_RETURNED:
            del self._returned[next(iter(self._returned))]

    def lose(self, outbox: Outbox) -> None:
        """The connection ended; unless another has taken its place already, events are kept from now on."""
        if self._outbox is outbox:
            self._outbox = None
            self.parting = False
            self._lost_at = time.monotonic()
            self._kept = sum(map(self._size, self.attempts))
            self._keep_within_bounds()

    def hold(self, attempt: Attempt) -> None:
        """A task of this gateway is about to be run."""
        key = attempt.label, attempt.attempt
        self.attempts[key] = attempt
        if self._returned:
            self._returned.pop(key, None)

    def refuse(self, task_id: str, seq: int, attempt: int, error: HandoffError) -> None:
        """End a task that cannot even begin (an unknown function, wrong arguments): for the gateway it was accepted, so this is its
        report."""
        self.has_returned(task_id, attempt)  # where the report is lost: sent again, it comes to the same
        if self._outbox is not None:
            self._outbox.put(ending_line(task_id, Event.FAILED, seq + 1, attempt, error) + b"\n")
            self._sent.append(None)

    def event(self, attempt: Attempt, line: bytes) -> None:
        """Send it and keep it."""
        attempt.lines.append(line)
        if self._outbox is not None:
            self._outbox.put(line + b"\n")
            self._sent.append(attempt)
        else:
            self._kept += len(line)
            self._keep_within_bounds()

    def final(self, attempt: Attempt, event: Event, key: bytes, value: bytes) -> None:
        """Send it and keep it."""
        self.event(attempt, final_line(attempt.label, event, attempt.seq, attempt.attempt, key, value))

    def acknowledge(self, outbox: Outbox, count: int) -> None:
        """The first `count` events that were sent on this connection, and not acknowledged before, are in the journal. What is still read
        from a connection that another has followed says nothing of what was sent on that one."""
        if outbox is not self._outbox:
            return
        sent, attempts = self._sent, self.attempts
        for _ in range(min(count, len(sent))):
            attempt = sent.popleft()
            if attempt is not None:
                del attempt.lines[0]
                if not attempt.lines and _over(attempt):
                    attempts.pop((attempt.label, attempt.attempt), None)

    def part(self) -> None:
        """Tell the gateway, where it is there, that nothing more is taken; it says the same once it sends nothing more."""
        if self._outbox is not None:
            self.parting = True
            self._outbox.put(b'{"leaving":true}\n')

    def parted(self, outbox: Outbox) -> None:
        """It has said so: what it had sent before has been read."""
        if outbox is self._outbox:
            self.parting = False

    def flush(self) -> None:
        """Write now."""
        if self._outbox is not None:
            self._outbox.flush()

    def wait(self) -> None:
        """Block while more than `FAR_BEHIND` bytes are unsent; without a connection nobody is held, and the bounds hold."""
        if self._outbox is not None and self._outbox.unsent > FAR_BEHIND:
            self._outbox.wait_open(FAR_BEHIND)

    def expire(self) -> bool:
        """Forget what is too old; whether nothing of this gateway is left but how far it had come."""
        if self._outbox is None and time.monotonic() - self._lost_at > KEPT_FOR:
            for key in list(self.attempts):
                self._disown(key)
            return not self.attempts
        return False

    @property
    def unacknowledged(self) -> bool:
        """Whether the gateway is there and has reports to acknowledge yet."""
        return self._outbox is not None and any(_over(attempt) for attempt in self.attempts.values())

    def _say_again(self, attempt: Attempt, seq: int) -> None:
        known = seq - (attempt.seq - len(attempt.lines))
        if known > 0:
            del attempt.lines[:known]
        if not attempt.lines and _over(attempt):
            del self.attempts[attempt.label, attempt.attempt]
        for line in attempt.lines:
            assert self._outbox is not None
            self._outbox.put(line + b"\n")
            self._sent.append(attempt)

    def _disown(self, key: Key) -> None:
        """Forget a task that is over; one that still runs only loses what was kept of it."""
        attempt = self.attempts[key]
        attempt.lines.clear()
        if _over(attempt):
            del self.attempts[key]

    def _keep_within_bounds(self) -> None:
        """Forget what is least needed: what was said on the way, of those first of whom most is kept; then whole tasks, the oldest
        first."""
        if self._kept <= KEPT_BYTES:
            return
        for key in sorted(self.attempts, key=self._size, reverse=True):
            self._kept -= self._size(key)
            attempt = self.attempts[key]
            del attempt.lines[: len(attempt.lines) - _over(attempt)]  # its end, where there is one, stays
            self._kept += self._size(key)
            if self._kept <= KEPT_BYTES:
                return
        for key in list(self.attempts):
            self._kept -= self._size(key)
            self._disown(key)
            if self._kept <= KEPT_BYTES:
                return

    def _size(self, key: Key) -> int:
        return sum(map(len, self.attempts[key].lines))


def _over(attempt: Attempt) -> bool:
    return attempt.state in FINAL_STATES or attempt.state is State.RETRYING


class Claimants:
    """The gateways that this process has met, by their journals' ids."""

    def __init__(self) -> None:
        self._known: dict[str, Claimant] = {}
        self._begin_at: float = -1

    def of(self, journal: str) -> Claimant:
        """The gateway that has this journal. Raises `Busy` where there are too many."""
        claimant = self._known.get(journal)
        if claimant is None:
            self._make_room()
            claimant = self._known[journal] = Claimant(journal, self._begin_at)
        return claimant

    def expire(self) -> None:
        """Forget what is too old."""
        for claimant in self._known.values():
            claimant.expire()

    @property
    def unacknowledged(self) -> bool:
        """Whether some gateway is there that has reports to acknowledge yet."""
        return any(claimant.unacknowledged for claimant in self._known.values())

    def awaited(self, within: float) -> bool:
        """Whether one may come back, or its successor: to hear what is kept for it, or to be told what never came, where it was lost within
        so many seconds."""
        lost = [claimant for claimant in self._known.values() if claimant._outbox is None]
        return any(claimant.attempts or time.monotonic() - claimant._lost_at < within for claimant in lost)

    @property
    def parting(self) -> bool:
        """Whether some gateway was told that this process leaves, and has not said that it has heard."""
        return any(claimant.parting for claimant in self._known.values())

    def part(self) -> None:
        """Tell every gateway that nothing more is taken."""
        for claimant in self._known.values():
            claimant.part()

    def _make_room(self) -> None:
        """Once one was forgotten, nobody new can be told that something never came: it may be the one that was forgotten."""
        if len(self._known) >= MOST_JOURNALS:
            forgettable = next((claimant for claimant in self._known.values() if claimant.expire()), None)
            if forgettable is None:
                raise Busy(f"{MOST_JOURNALS} gateways are known here already", 5.0)
            del self._known[forgettable.journal]
            self._begin_at = math.inf


class Claims:
    """What a gateway claims: `{"claim": [[id, attempt, seq, dispatch], …], "journal": id}`, in several lines where one would be too long,
    all but the last with `"more": true`."""

    def __init__(self) -> None:
        self._taken: list[Claim] = []

    def take(self, message: dict[str, Any]) -> list[Claim] | None:
        """One more line; all that is claimed once it was the last. Raises `BadRequest`."""
        self._taken += _checked(message["claim"])
        if len(self._taken) > MOST_CLAIMS:
            raise BadRequest(f"more than {MOST_CLAIMS} tasks are claimed")
        if message.get("more") is True:
            return None
        taken, self._taken = self._taken, []
        return taken


def _checked(claims: Any) -> list[Claim]:
    if type(claims) is not list:
        raise BadRequest(_WANTED)
    checked = []
    for claim in claims:
        if type(claim) is not list or [type(part) for part in claim] != [str, int, int, int]:
            raise BadRequest(_WANTED)
        checked.append((check_label(claim[0]), claim[1], claim[2], claim[3]))
    return checked


_WANTED = '"claim" wants an array of [id, attempt, seq, dispatch]'
