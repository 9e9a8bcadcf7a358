"""What a `list` asks for, read from its request. What is found is `app/journal.py`'s.

    {"list": {"limit": 100, "before": 4711, "state": "failed" or ["failed", …], "function": "echo", "id": "6f1c", "args": true}}

All of it may be left out. `limit`: at most `MAX_LISTED` tasks (`MOST_WITH_ARGS` with their arguments). `before`: the number that came with
an earlier answer, which goes on from there. `id`: what the ids begin with.
"""

from typing import Any, Final

from app.dispatch import MAX_LISTED
from app.errors import BadRequest
from app.journal import Wanted
from app.messages import State, check_id, read_whole

MOST_WITH_ARGS: Final = 10
MOST_NAME: Final = 100

_KEYS: Final = frozenset({"limit", "before", "state", "function", "id", "args"})
_STATES: Final = {state.value: state for state in State}


def read_wanted(asked: Any) -> tuple[int, Wanted]:
    """The limit, and which tasks are wanted. Raises `BadRequest`."""
    if type(asked) is not dict or not asked.keys() <= _KEYS:
        raise BadRequest(f'"list" wants an object; there are {", ".join(sorted(_KEYS))}')
    args = asked.get("args", False)
    if type(args) is not bool:
        raise BadRequest('"args" wants true or false')
    most = MOST_WITH_ARGS if args else MAX_LISTED
    limit = read_whole({"limit": min(100, most), **asked}, "limit", 1, most)
    before = read_whole({"before": Wanted().before, **asked}, "before", 0, Wanted().before)
    task_id = check_id(asked["id"]) if "id" in asked else ""
    return limit, Wanted(before, _states(asked.get("state", [])), _function(asked.get("function", "")), task_id, args)


def _states(asked: Any) -> frozenset[State]:
    names = [asked] if type(asked) is str else asked
    if type(names) is not list or not all(type(name) is str and name in _STATES for name in names):
        raise BadRequest(f'"state" wants one of {", ".join(_STATES)}, or a list of them')
    return frozenset(_STATES[name] for name in names)


def _function(asked: Any) -> str:
    if type(asked) is not str or len(asked) > MOST_NAME:
        raise BadRequest(f'"function" wants a string of at most {MOST_NAME} characters')
    return asked
