"""One task as it is shown over HTTP: what the journal says of it, and where it stands. Nothing is shown before its commit."""

from collections.abc import Mapping
from typing import Any, Final

from app import wire
from app.dispatch import Dispatcher
from app.errors import UnknownTask
from app.journal import Journal, Said, Stored
from app.messages import FINAL_STATES, State
from app.task import Key, Task, key_of

_AT_ONCE: Final = 50
_ACCEPTED: Final[Mapping[str, Any]] = {"event": "accepted", "seq": 1}
_PROGRESS: Final = ("done", "total", "note")

_STATES: Mapping[str, State] = {
    "accepted": State.QUEUED,
    "started": State.RUNNING,
    "progress": State.RUNNING,
    "output": State.RUNNING,
    "retrying": State.RETRYING,
}
"""Where a task stands after an event that is not the last."""


class Views:
    """Makes them, for one dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def show(self, owner: str, task_id: str) -> dict[str, Any]:
        """The task, in JSON types: `result` or `error` where it is over, `progress` where that was the last word. Raises `UnknownTask`."""
        task = self._dispatcher.find(owner, task_id)
        if task is not None and task.kept == 1 and task.state not in FINAL_STATES:
            return _view(task_id, task.function, task.state, _ACCEPTED)
        stored, said = _last(self._dispatcher.journal, key_of(owner, task_id), task)
        if stored is None:
            raise UnknownTask(task_id)
        event = _ACCEPTED if said is None else wire.decode(said[1])
        state = _STATES.get(event["event"]) or State(event["event"])
        if task is not None and not {state, task.state} & FINAL_STATES:
            state = task.state
        return _view(task_id, stored.function, state, event)


def is_over(view: Mapping[str, Any]) -> bool:
    """Whether a task that is shown so is over."""
    return State(view["state"]) in FINAL_STATES


def _view(task_id: str, function: str, state: State, event: Mapping[str, Any]) -> dict[str, Any]:
    """A task in this state, of which `event` was the last that was said."""
    view = {"id": task_id, "function": function, "state": state.value, "seq": event["seq"], "attempt": event.get("attempt", 0)}
    if event["event"] == "progress":
        view["progress"] = {key: event[key] for key in _PROGRESS if key in event}
    if state in FINAL_STATES:
        view |= {key: event[key] for key in ("result", "error") if key in event}
    return view


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
