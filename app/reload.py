"""A rolling reload: other processes with newly loaded code take the places of those that serve, and nobody is sent away. One at a time.

    idle ──HUP──▶ booting ──all have booted──▶ switching ──all serve──▶ idle
                     └── one has not ──▶ idle: those that served serve on, and what of the new ones has begun to work ends that first

The new ones are started beside the old ones. Who has booted and does not serve yet waits for the one before it, which is told with HUP to
let go (the gateway: of the journal); who waits for nobody serves at once, and its predecessor is told once all the others serve. What runs
in a process that was told may take as long as it takes: there is no limit. Nothing is forked, reaped or signalled by chance here: the
master calls `step` in its loop.
"""

import enum
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from app.offspring import Place, kill_group

log = logging.getLogger(__name__)

BOOT_LIMIT = 60.0
"""Seconds in which new processes have to load their code, all of them; else the old ones serve on."""

SWITCH_LIMIT = 15.0
"""Seconds in which an old process has to let go of what a new one waits for; then it is killed."""

_NEVER = float("inf")


class _Phase(enum.Enum):
    IDLE = "idle"
    BOOTING = "booting"
    SWITCHING = "switching"


class Outcome(NamedTuple):
    """How many reloads of one master were begun, are done, and have failed; in a file in the run directory for who waits for one to end."""

    begun: int = 0
    done: int = 0
    failed: int = 0

    @property
    def ended(self) -> int:
        """However."""
        return self.done + self.failed

    @classmethod
    def read(cls, run_dir: Path) -> "Outcome":
        """What the file says; nothing, where a master that starts for the first time has not come to write it."""
        try:
            return cls(*json.loads(_outcomes(run_dir).read_bytes()))
        except FileNotFoundError:
            return cls()

    def write(self, run_dir: Path | None) -> "Outcome":
        """Whoever reads has all of it; nothing is written where there is no directory."""
        if run_dir is not None:
            unfinished = _outcomes(run_dir).with_suffix(".new")
            try:
                with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                    json.dump(self, file)
                unfinished.replace(_outcomes(run_dir))
            except OSError as error:
                log.error("reload-unsaid: cannot write how it ended: %s", error)
        return self


def _outcomes(run_dir: Path) -> Path:
    return run_dir / "reloads"


class Reload:
    """Of one master, whose `places` and `leavers` it changes. `start` forks a process for a place."""

    def __init__(self, places: list[Place], leavers: list[Place], start: Callable[[Place], None], run_dir: Path | None) -> None:
        self._places = places
        self._leavers = leavers
        self._start = start
        self._run_dir = run_dir
        self._outcome = Outcome().write(run_dir)
        self._phase = _Phase.IDLE
        self._asked = False
        self._to_be_told: list[Place] = []
        self.successors: list[Place] = []
        """Processes that have not taken their places yet."""
        self.due = _NEVER
        """When `step` has something to do, if nothing happens before."""

    def ask(self) -> None:
        """There is to be one; where one is under way, another after it, for the code may have changed since it began."""
        self._asked = True

    def step(self) -> None:
        """Go on, as far as that is possible now."""
        if self._phase is _Phase.IDLE and self._asked:
            self._begin()
        elif self._phase is _Phase.BOOTING and all(place.booted for place in self.successors):
            self._switch()
            self.step()
        elif self._phase is _Phase.BOOTING and time.monotonic() >= self.due:
            self._fail(f"code is not loaded within {BOOT_LIMIT:g} s")
        elif self._phase is _Phase.SWITCHING and all(place.ready_at for place in self._places):
            self._finish()
        elif self._phase is _Phase.SWITCHING and time.monotonic() >= self.due:
            self._force()

    def has_ended(self, place: Place) -> None:
        """A process is gone: where it was to take a place and has not yet, nothing comes of this reload."""
        if place in self.successors:
            self.successors.remove(place)
            self._fail(f"{place.name} could not start, for the reason above")

    def _begin(self) -> None:
        self._asked = False
        self._outcome = self._outcome._replace(begun=self._outcome.begun + 1).write(self._run_dir)
        self._phase, self.due = _Phase.BOOTING, time.monotonic() + BOOT_LIMIT
        log.info("reload-begins: %d processes are started beside those that serve", len(self._places))
        self.successors = [Place(place.name, place.role, successor=True) for place in self._places]
        for place in list(self.successors):
            self._start(place)
            if not place.pid:
                self.has_ended(place)
                return

    def _switch(self) -> None:
        self._phase, self.due = _Phase.SWITCHING, time.monotonic() + SWITCH_LIMIT
        waiting = {place.role.name for place in self.successors if not place.ready_at}
        old = [place for place in self._places if place.pid]
        self._places[:] = self.successors
        self.successors = []
        for place in old:
            place.outdated = True
            self._leavers.append(place)
            if place.role.name in waiting:
                _tell(place)
        self._to_be_told = [place for place in old if place.role.name not in waiting]

    def _finish(self) -> None:
        for place in self._to_be_told:
            _tell(place)
        left = sum(place.outdated for place in self._leavers)
        log.info(
            "reload-done: %d processes serve with newly loaded code; %d old ones leave as soon as their tasks have ended",
            len(self._places),
            left,
        )
        self._end(self._outcome._replace(done=self._outcome.done + 1))

    def _force(self) -> None:
        """Somebody is waited for in vain: whoever was told to let go is killed, and what it had is taken up by the next one."""
        late = {place.role.name for place in self._places if not place.ready_at}
        for place in self._leavers:
            if place.outdated and place.pid and place.role.name in late and place not in self._to_be_told:
                log.error("reload-forced: %s (pid %d) has not let go within %g s, and is killed", place.name, place.pid, SWITCH_LIMIT)
                kill_group(place.pid)
        self._finish()

    def _fail(self, why: str) -> None:
        log.error("reload-failed: %s; those that served serve on", why)
        for place in self.successors:
            if place.ready_at:
                _tell(place)
            else:
                kill_group(place.pid)
            place.outdated = True
        self._leavers += [place for place in self.successors if place.pid]
        self.successors = []
        self._end(self._outcome._replace(failed=self._outcome.failed + 1))

    def _end(self, outcome: Outcome) -> None:
        self._to_be_told = []
        self._phase, self.due = _Phase.IDLE, time.monotonic() if self._asked else _NEVER
        self._outcome = outcome.write(self._run_dir)


def _tell(place: Place) -> None:
    if place.pid:
        os.kill(place.pid, signal.SIGHUP)
