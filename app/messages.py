"""What is said of a task: the task itself, the requests, the events, the states, and the one table of how a state follows another.

Values and their checks only: who sends them, keeps them or acts on them is found in other rooms. `TRANSITIONS` is read by dispatch and
by its tests.
"""

import enum
import re
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from app import wire
from app.errors import BadRequest, HandoffError
from app.labels import LABEL, check_label

IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
MAX_PRIORITY = 1000
MAX_DELAY = 30 * 24 * 3600.0


class State(enum.Enum):
    """Where a task stands. `QUEUED` also covers one whose time has not come (`delay`)."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    __hash__ = object.__hash__  # the one of Enum is written in Python, and these are looked up on the hot path


class Event(enum.Enum):
    """What can be said of a task. `DISPATCHED`, `RETURNED` and `DUE` are between our own processes and are never shown to a client."""

    ACCEPTED = "accepted"
    DISPATCHED = "dispatched"
    STARTED = "started"
    PROGRESS = "progress"
    OUTPUT = "output"
    RETURNED = "returned"
    RETRYING = "retrying"
    DUE = "due"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    __hash__ = object.__hash__


FINAL_EVENTS = frozenset({Event.SUCCEEDED, Event.FAILED, Event.TIMED_OUT, Event.CANCELLED, Event.INTERRUPTED})
FINAL_STATES = frozenset(State(event.value) for event in FINAL_EVENTS)

FINAL_STATE: Mapping[Event, State] = {event: State(event.value) for event in FINAL_EVENTS}
"""The state that a final event leads to."""

NAMES: Mapping[Event, bytes] = {event: event.value.encode() for event in Event}
"""What stands for an event on the wire."""

EVENTS: Mapping[bytes, Event] = {event.value.encode(): event for event in Event}
"""The events by what stands for them on the wire."""

TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.QUEUED: {
        Event.ACCEPTED: State.QUEUED,
        Event.DISPATCHED: State.DISPATCHED,
        Event.CANCELLED: State.CANCELLED,
        Event.FAILED: State.FAILED,
    },
    State.DISPATCHED: {
        Event.STARTED: State.RUNNING,
        Event.PROGRESS: State.RUNNING,
        Event.OUTPUT: State.RUNNING,
        Event.RETURNED: State.QUEUED,
        Event.RETRYING: State.RETRYING,
        **FINAL_STATE,
    },
    State.RUNNING: {
        Event.STARTED: State.RUNNING,
        Event.PROGRESS: State.RUNNING,
        Event.OUTPUT: State.RUNNING,
        Event.RETRYING: State.RETRYING,
        **FINAL_STATE,
    },
    State.RETRYING: {
        Event.DUE: State.QUEUED,
        Event.CANCELLED: State.CANCELLED,
        Event.FAILED: State.FAILED,
    },
    **{state: {} for state in FINAL_STATES},
}
"""For each state, the events that may come in it and the state that follows. Anything else is refused and logged."""


class Submit(NamedTuple):
    """A request to run something, checked. `id` is empty in the short form; `attempt` is 0 where no gateway sent it."""

    id: str
    function: str
    args: dict[str, Any] | list[Any] | None
    final_only: bool = False
    priority: int = 0
    delay: float = 0.0
    cancel_on_disconnect: bool = False
    attempt: int = 0
    seq: int = 0
    dispatch: int = 0


_SUBMIT_KEYS = frozenset({"id", "function", "args", "events", "priority", "delay", "on_disconnect"})


def read_submit(message: dict[str, Any]) -> Submit:
    """A submit of a client, checked; raises `BadRequest`."""
    function, args = _read_call(message)
    known = 1 + ("args" in message)
    task_id, final_only = "", False
    if "id" in message:
        known += 1
        task_id = check_id(message["id"])
    if "events" in message:
        known += 1
        final_only = _choice(message["events"], "events", "all", "final")
    submit = Submit(task_id, function, args, final_only)
    return submit if len(message) == known else _read_options(message, submit)


def read_placed(message: dict[str, Any]) -> Submit:
    """A submit that a gateway sent to a worker: with its attempt, the number of its last event and that of its dispatch; its options were
    followed already."""
    function, args = _read_call(message)
    task_id = check_label(message.get("id"))
    attempt, seq, dispatch = message["attempt"], message.get("seq"), message.get("dispatch")
    if type(attempt) is not int or type(seq) is not int or type(dispatch) is not int or attempt < 1 or seq < 0:
        raise BadRequest('"attempt", "seq" and "dispatch" want whole numbers')
    return Submit(task_id, function, args, message.get("events") == "final", attempt=attempt, seq=seq, dispatch=dispatch)


def _read_call(message: dict[str, Any]) -> tuple[str, dict[str, Any] | list[Any] | None]:
    function = message["function"]
    if type(function) is not str:
        raise BadRequest('"function" wants a string')
    args = message.get("args")
    if args is not None and type(args) is not dict and type(args) is not list:
        raise BadRequest('"args" wants an object (by name) or an array (by position)')
    return function, args


def _read_options(message: dict[str, Any], submit: Submit) -> Submit:
    if not message.keys() <= _SUBMIT_KEYS:
        unknown = sorted(message.keys() - _SUBMIT_KEYS)[0]
        raise BadRequest(f"{unknown[:40]!r} is no part of a task; there are {', '.join(sorted(_SUBMIT_KEYS))}")
    return submit._replace(
        priority=_whole(message.get("priority", 0), "priority", -MAX_PRIORITY, MAX_PRIORITY),
        delay=_seconds(message.get("delay", 0)),
        cancel_on_disconnect=_choice(message.get("on_disconnect", "detach"), "on_disconnect", "detach", "cancel"),
    )


def check_id(task_id: Any) -> str:
    """The id, where it is one; raises `BadRequest`."""
    if type(task_id) is not str or not IDENTIFIER.match(task_id):
        raise BadRequest('"id" wants 1 to 64 characters of A-Z a-z 0-9 _ -')
    return task_id


def read_whole(message: dict[str, Any], key: str, lowest: int, highest: int) -> int:
    """A whole number under `key`; raises `BadRequest`."""
    return _whole(message.get(key), key, lowest, highest)


def new_id() -> str:
    """An id for a task whose sender gave none."""
    return uuid.uuid4().hex


def _choice(value: Any, key: str, no: str, yes: str) -> bool:
    if value == no:
        return False
    if value == yes:
        return True
    raise BadRequest(f'"{key}" wants "{no}" or "{yes}"')


def _whole(value: Any, key: str, lowest: int, highest: int) -> int:
    if type(value) is not int or not lowest <= value <= highest:
        raise BadRequest(f'"{key}" wants a whole number from {lowest} to {highest}')
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= MAX_DELAY:
        raise BadRequest(f'"delay" wants seconds from 0 to {MAX_DELAY:.0f}')
    return float(value)


read_event = re.compile(
    rb'\{"id":"([A-Za-z0-9_-]{1,64}(?:~[0-9a-f]{16})?)","event":"([a-z_]+)","seq":(\d{1,16}),"attempt":(\d{1,7})[,}]'
).match
"""The head that every event of a worker begins with, so that the rest need not be decoded: label, event, seq, attempt."""


def event_line(task_id: str, event: Event, seq: int, attempt: int, **fields: Any) -> bytes:
    """An event as it stands on the wire, without a line ending; the head is the one that `read_event` reads."""
    return event_body_line(task_id, event, seq, attempt, wire.encode(fields)[1:-1])


def event_body_line(task_id: str, event: Event, seq: int, attempt: int, body: bytes) -> bytes:
    """As `event_line`, with what follows the head as JSON already (`"key":value,…`; may be empty)."""
    head = b'{"id":"%b","event":"%b","seq":%d,"attempt":%d' % (task_id.encode(), NAMES[event], seq, attempt)
    return b"%b,%b}" % (head, body) if body else head + b"}"


def accepted_line(task_id: str, position: int) -> bytes:
    """The first event of every task: it is in the journal. `position`: how many tasks were queued before it."""
    return b'{"id":"%b","event":"accepted","seq":1,"position":%d}' % (task_id.encode(), position)


def final_line(task_id: str, event: Event, seq: int, attempt: int, key: bytes, value: bytes) -> bytes:
    """A final event whose `result` or `error` (the key) is JSON already."""
    return b'{"id":"%b","event":"%b","seq":%d,"attempt":%d,"%b":%b}' % (task_id.encode(), NAMES[event], seq, attempt, key, value)


def ending_line(task_id: str, event: Event, seq: int, attempt: int, error: HandoffError) -> bytes:
    """A final event that is not `succeeded`."""
    return event_line(task_id, event, seq, attempt, error=error.as_wire())


def refusal(error: HandoffError, task_id: str = "") -> bytes:
    """What is answered where nothing was accepted; carries the id where one was readable."""
    body: dict[str, Any] = {"id": task_id} if task_id else {}
    return wire.encode({**body, "error": error.as_wire()})


def readable_id(message: Any) -> str:
    """The id of a request that is being refused, where it has one."""
    task_id = message.get("id") if type(message) is dict else None
    return task_id if type(task_id) is str and LABEL.match(task_id) else ""
