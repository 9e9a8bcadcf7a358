"""Blocking code made cooperative, by gevent, in a process that has just begun. Who calls this, and when, is in `run.py`."""

from importlib import metadata
from typing import Any, cast

from gevent import monkey


def patch() -> None:
    """Before anything that blocks is imported.

    gevent asks at each of its 25 steps which plugins want to know of it, and reads the metadata of everything that is installed each time:
    more work than all else that starts a process. Here it is read once."""
    read = metadata.entry_points
    metadata.entry_points = cast(Any, read().select)
    try:
        monkey.patch_all()
    finally:
        metadata.entry_points = read
