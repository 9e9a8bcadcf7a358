"""One task as it is shown over HTTP: what the journal says of it, and where it stands. Nothing is shown before its commit."""

from typing import Any, Final, NamedTuple

from app import wire
from app.dispatch import Dispatcher
from app.errors import UnknownTask
from app.journal import Journal, Said, Stored
from app.messages import EVENTS, FINAL_STATE, FINAL_STATES, Event, State, read_event
from app.task import Key, Task, key_of

_AT_ONCE: Final = 8
_PROGRESS: Final = ("done", "total", "note")
_STATES: Final = {
    Event.STARTED: State.RUNNING,
    Event.PROGRESS: State.RUNNING,
    Event.OUTPUT: State.RUNNING,
    Event.RETRYING: State.RETRYING,
}
"""Where a task stands after an event that is not the last."""

_UNTOLD: Final = (State.QUEUED, State.DISPATCHED)


class View(NamedTuple):
    """A task as JSON, and whether it is over."""

    body: bytes
    over: bool


class Views:
    """Makes them, for one dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def show(self, owner: str, task_id: str) -> View:
        """The task: `result` or `error` where it is over, `progress` where that was the last word. Raises `UnknownTask`."""
        task = self._dispatcher.find(owner, task_id)
        if task is not None and task.kept == 1:
            return _view(task_id, task.function, task, b"")
        stored, said = _last(self._dispatcher.journal, key_of(owner, task_id), task)
        if stored is None:
            raise UnknownTask(task_id)
        return _view(task_id, stored.function, task, b"" if said is None else said[1])


def _view(task_id: str, function: str, task: Task | None, line: bytes) -> View:
    """`line` is the last that was said of it, if that was more than that it was accepted. Of a final one the end is taken as it stands: it
    may be large, and is JSON already."""
    head = read_event(line)
    event, seq, attempt = (EVENTS[head[2]], int(head[3]), int(head[4])) if head is not None else (Event.ACCEPTED, 1, 0)
    state = FINAL_STATE.get(event) or _state(_STATES.get(event, State.QUEUED), task)
    view: dict[str, Any] = {"id": task_id, "function": function, "state": state.value, "seq": seq, "attempt": attempt}
    if head is not None and state in FINAL_STATES:
        return View(wire.encode_decoded(view)[:-1] + line[head.end() - 1 :], over=True)
    if event is Event.PROGRESS:
        said = wire.decode(line)
        view["progress"] = {key: said[key] for key in _PROGRESS if key in said}
    return View(wire.encode_decoded(view), over=False)


def _state(told: State, task: Task | None) -> State:
    """Where a task stands that is not over, of which the last kept event told this. Memory leads, and is followed where no event is to
    come that would tell; otherwise, only in what is kept already."""
    if task is None:
        return told
    if task.state in _UNTOLD or (task.final_only and task.state not in FINAL_STATES):
        return task.state
    return State.DISPATCHED if told is State.QUEUED and task.attempt else told


def _last(journal: Journal, key: Key, task: Task | None) -> tuple[Stored | None, Said | None]:
    """The task as the journal has it, and the last that was said of it. Of one that is not over its number is known; otherwise it is
    looked for, in as many steps as that number has bits."""
    if task is not None and task.kept > 1:
        stored = journal.read(key, task.kept - 1, 1)
        return stored, stored.events[0] if stored is not None and stored.events else None
    stored = journal.read(key, 0, _AT_ONCE)
    if stored is None or not stored.events:
        return stored, None
    said = stored.events[-1]
    return stored, said if len(stored.events) < _AT_ONCE else _search(journal, key, said)


def _search(journal: Journal, key: Key, said: Said) -> Said:
    """The last event, where `said` is one: strides double while there is one behind them, then halve."""
    stride, growing = _AT_ONCE, True
    while stride:
        further = journal.read(key, said[0] + stride - 1, 1)
        if further is not None and further.events:
            said = further.events[0]
            stride = stride * 2 if growing else stride
        else:
            growing = False
            stride //= 2
    return said
