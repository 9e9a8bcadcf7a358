"""How a process says how it is: a few times a second a beat, in which what is known of it is written to its slot of the scoreboard.

What is counted on the hot path is plain integers in other rooms; they are looked at here. A beat that comes late is one that the event
loop had no time for, and that is how its lag is known. With nobody watching, this is some 100 µs four times a second.
"""

import contextlib
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from app import VERSION
from app.scoreboard import Board, Slot, Tree

log = logging.getLogger(__name__)

BEAT_EVERY = 0.25
"""Seconds between two beats: so much of what it has counted is lost where a process is killed, at most."""

LATE = 0.25
"""Seconds of lag from which the event loop counts as having been blocked."""

MOST_SHOWN = 20
"""Tasks of a process that are named, those that began first."""

_WINDOW = 40
_SLOW_BEATS = 4
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Look(NamedTuple):
    """What a process is doing now. `began` counts the tasks that it has begun or taken, `busy` those that it is at; `running` names some
    of these by function, id and when they began, in seconds since 1970; `gauges` has other figures of now, `counts` those that grow."""

    connections: int
    began: int
    busy: int
    running: list[tuple[str, str, float]]
    gauges: Mapping[str, float]
    counts: Tree


class Heartbeat:
    """Of one process. `look` is called at each beat, in the hub: it must not block."""

    def __init__(self, loop: Any, role: str, name: str, address: str, look: Callable[[], Look]) -> None:
        self._who = who(role, name, address)
        self._look = look
        self._slot: Slot | None = None
        self._timer = loop.timer(BEAT_EVERY, BEAT_EVERY)
        self._beats = 0
        self._due = 0.0
        self._blocked = 0
        self._memory = 0
        self._lags: deque[float] = deque(maxlen=_WINDOW)
        self._began: deque[tuple[float, int]] = deque(maxlen=_WINDOW // 2)

    def start(self, run_dir: Path) -> Board:
        """Take a slot and begin to beat; the scoreboard. Raises `OSError` where there is no room for a slot: then nothing is said of this
        process."""
        board = Board(run_dir, make=True)
        try:
            self._slot = board.take()
            self._say()
        except OSError:
            self._slot = None
            board.close()
            raise
        self._due = time.monotonic() + BEAT_EVERY
        self._timer.start(self._beat)
        return board

    @property
    def number(self) -> int:
        """That of its slot; 0 where it has none."""
        return self._slot.number if self._slot is not None else 0

    def stop(self) -> None:
        """Say for the last time what was counted; the slot is free once the process has ended."""
        self._timer.stop()
        if self._slot is not None:
            self._say()

    def _beat(self) -> None:
        if os.getpid() != self._who["pid"]:  # a task has forked: the slot is its parent's
            self._timer.stop()
            return
        now = time.monotonic()
        lag = max(0.0, now - self._due)
        self._due = now + BEAT_EVERY
        self._lags.append(lag)
        self._blocked += lag > LATE
        try:
            self._say()
        except Exception:  # the barrier of one beat: the next may fare better
            log.exception("beat-failed")

    def _say(self) -> None:
        assert self._slot is not None
        if self._beats % _SLOW_BEATS == 0:
            self._memory = memory()
        self._beats += 1
        look = self._look()
        now = time.monotonic()
        self._began.append((now, look.began))
        since, before = self._began[0]
        said = {
            **self._who,
            **look._asdict(),
            "beat_at": time.time(),
            "rate": round((look.began - before) / max(now - since, BEAT_EVERY), 1),
            "lag": round(max(self._lags, default=0.0), 4),
            "memory": self._memory,
            "counts": {**look.counts, "blocked": self._blocked},
        }
        self._slot.write(said)


def who(role: str, name: str, address: str) -> Tree:
    """What a process says of itself that stays the same."""
    same = {"role": role, "name": name, "address": address, "version": VERSION}
    return {**same, "id": uuid.uuid4().hex, "pid": os.getpid(), "started_at": time.time()}


def memory(pid: int | str = "self") -> int:
    """What a process, this one by default, has in memory now, in bytes. Raises `OSError` where it is gone."""
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE


def memory_of(said: Tree) -> int:
    """As it said itself; of one that has no beat, as the system says."""
    if said["beat_at"]:
        return int(said["memory"])
    with contextlib.suppress(OSError):
        return memory(said["pid"])
    return 0


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped it; see proc(5). The master, which has no beat, is not seen to hang otherwise."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "Tt"
    return False


def silence_of(said: Tree) -> float:
    """Seconds for which a beat of it is overdue; of one that has no beat, 0."""
    return max(0.0, time.time() - said["beat_at"] - BEAT_EVERY) if said["beat_at"] else 0.0
