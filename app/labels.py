"""What a gateway and a worker call a task: its id; where it has an owner, with a mark of that, since two owners may have given the same id.

Nobody else is shown it. What lines say of a task by that name is in `app/messages.py`.
"""

import hashlib
import re
from functools import lru_cache
from typing import Any

from app.errors import BadRequest

LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}(?:~[0-9a-f]{16})?\Z")


def check_label(label: Any) -> str:
    """The label, where it is one; raises `BadRequest`."""
    if type(label) is not str or not LABEL.match(label):
        raise BadRequest('"id" wants 1 to 64 characters of A-Z a-z 0-9 _ -')
    return label


def label_of(owner: str, task_id: str) -> str:
    """Of the task that this owner (empty: none) has given this id."""
    return f"{task_id}~{_mark(owner)}" if owner else task_id


def id_of(label: str) -> str:
    """The id that its owner gave to what is called so."""
    return label.partition("~")[0]


@lru_cache(1024)
def _mark(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]
