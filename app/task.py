"""A task as the gateway holds it, from the submit to its final event. What becomes of it is decided in `app/dispatch.py`."""

import json
import time
from typing import Any, Protocol

from app import wire
from app.errors import HandoffError
from app.labels import label_of
from app.messages import TRANSITIONS, Event, State, Submit

_WAITING = frozenset({State.QUEUED, State.RETRYING})

Key = str
"""Who submitted a task, and under what id, in one string: its hash is computed once, and it is looked up at every step."""


class Watcher(Protocol):
    """Somebody who is told what becomes of a task."""

    def deliver(self, seq: int, line: bytes, final: bool) -> None:
        """An event that is in the journal. Called in the hub: must not block."""

    def already_known(self) -> None:
        """The journal had a task of this key before: whatever there is to tell is to be read from there. Called in the hub."""

    def refused(self, error: HandoffError) -> None:
        """It was not accepted after all: it could not be kept. Called in the hub."""


class Task:
    """`seq` is the number of the last event, `kept` of the last that is in the journal; `queued` says whether it stands in the queue,
    `link` is the worker that has it, and `sent` whether anything of it may have left for there.

    `label` is what workers call it. `order` is the task's number in its journal; `dispatch` the number of its last dispatch: each is higher
    than all before it. `attempts` (1: never started twice) and `backoff` (seconds) are what its function declared when it was accepted.
    `due` is when its time comes, by the journal's clock; `accepted_at` is in seconds since 1970. `slot` says which kind of slot it is
    counted in; `ticket` is its place among all that were ever queued. `since` is when it began to wait, then when it was last placed, in
    seconds since 1970; `ended_at` when it was over; `progress` is the line that last told how far it is. `durable`: it goes to the disk.
    `ends_with_client`: it is cancelled where its submitter is gone.
    """

    __slots__ = (
        "accepted_at",
        "args",
        "attempt",
        "attempts",
        "backoff",
        "cancelling",
        "dispatch",
        "due",
        "durable",
        "ended_at",
        "ends_with_client",
        "final_only",
        "function",
        "id",
        "kept",
        "key",
        "label",
        "lane",
        "link",
        "order",
        "owner",
        "position",
        "priority",
        "progress",
        "queued",
        "sent",
        "seq",
        "since",
        "slot",
        "state",
        "ticket",
        "watchers",
    )

    def __init__(self, owner: str, lane: Any, submit: Submit, args: bytes, order: int) -> None:
        self.id = submit.id
        self.owner = owner
        self.key = key_of(owner, submit.id)
        self.label = label_of(owner, submit.id)
        self.lane = lane
        self.function = submit.function
        self.args = args
        self.final_only = submit.final_only
        self.ends_with_client = submit.cancel_on_disconnect
        self.priority = submit.priority
        self.order = order
        self.position = 0
        self.state = State.QUEUED
        self.seq = 1  # the number of `accepted`
        self.kept = 0
        self.attempt = 0
        self.attempts = 1
        self.backoff = 0.0
        self.durable = True
        self.dispatch = 0
        self.due = 0.0
        self.slot = ""
        self.ticket = 0
        self.link: Any = None
        self.queued = False
        self.sent = False
        self.cancelling = False
        self.accepted_at = self.since = time.time()
        self.ended_at = 0.0
        self.progress = b""
        self.watchers: list[Watcher] = []

    def advance(self, event: Event) -> bool:
        """Go on to the state that follows; False, and no change, where this event may not come now."""
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            return False
        self.state = following
        return True

    def same_content(self, function: str, args: bytes) -> bool:
        """Whether a submit under the same id asks for the same."""
        return same_content(self.function, self.args, function, args)

    def line(self) -> bytes:
        """What is sent to a worker."""
        return b'{"id":"%b","function":"%b","args":%b,"attempt":%d,"seq":%d,"dispatch":%d%b}\n' % (
            self.label.encode(),
            self.function.encode(),
            self.args,
            self.attempt,
            self.seq,
            self.dispatch,
            b',"events":"final"' if self.final_only else b"",
        )

    def describe(self) -> dict[str, Any]:
        """Its entry in a list."""
        return {**self._entry(), **self._times()}

    def _entry(self) -> dict[str, Any]:
        return describe(self.id, self.function, self.state.value, self.seq, self.attempt, self.accepted_at, self.order, self.ended_at)

    def _times(self) -> dict[str, Any]:
        """What only memory knows: when it began, and how far it is."""
        times: dict[str, Any] = {"started_at": round(self.since, 3)} if self.attempt and self.state not in _WAITING else {}
        if self.progress:
            said = wire.decode(self.progress)
            times["progress"] = {key: said[key] for key in ("done", "total", "note") if key in said}
        return times


def describe(
    task_id: str, function: str, state: str, seq: int, attempt: int, accepted_at: float, order: int, ended_at: float
) -> dict[str, Any]:
    """A task's entry in a list. Times are in seconds since 1970; `finished_at` is there only where it is over (`ended_at` is not 0)."""
    accepted = round(accepted_at, 3)
    entry = {"id": task_id, "function": function, "state": state, "seq": seq, "attempt": attempt, "accepted_at": accepted, "order": order}
    return {**entry, "finished_at": round(ended_at, 3)} if ended_at else entry


def key_of(owner: str, task_id: str) -> Key:
    """The key of a task. An id has no spaces, so the first one ends it."""
    return f"{task_id} {owner}" if owner else task_id


def same_content(function: str, args: bytes, other_function: str, other_args: bytes) -> bool:
    """Whether two submits ask for the same: the order of keys is nothing, `1` and `true` are different things."""
    if function != other_function:
        return False
    return args == other_args or _canonical(args) == _canonical(other_args)


def asks_for(submit: Submit, function: str, args: bytes) -> bool:
    """Whether a submit asks for the task that has this content."""
    return same_content(submit.function, wire.encode_decoded({} if submit.args is None else submit.args), function, args)


def _canonical(args: bytes) -> str:
    return json.dumps(wire.decode(args), sort_keys=True)
