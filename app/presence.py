"""How a process is seen from outside, for those that run an event loop: its heartbeat on the scoreboard, and its control socket."""

import logging
import os
from collections.abc import Callable
from typing import Any

from app.address import Address
from app.control import Control, Listing
from app.heartbeat import Heartbeat, Look
from app.rundir import RunDirectory
from app.scoreboard import Board
from app.settings import Settings

log = logging.getLogger(__name__)

AGAIN_AFTER = 5.0
"""Seconds after which a process that has found no room on the scoreboard looks again."""


class Presence:
    """Of one process. `board` is the scoreboard, once it has begun; None while there is no room for a slot."""

    def __init__(self, loop: Any, settings: Settings, role: str, name: str, address: Address, look: Callable[[], Look]) -> None:
        self._settings = settings
        self._heartbeat = Heartbeat(loop, role, name, str(address), look)
        self._pid = os.getpid()
        self._rundir: RunDirectory | None = None
        self._control: Control | None = None
        self._again = loop.timer(AGAIN_AFTER, AGAIN_AFTER)
        self.board: Board | None = None

    def start(self, listing: Listing) -> None:
        """Be seen from now on, or as soon as the disk has room for it."""
        try:
            self._begin(listing)
        except OSError as error:
            log.error("scoreboard-unavailable: nothing is known of this process until there is room for it: %s", error)
            self._again.start(self._try_again, listing)

    def stop(self) -> None:
        """Say what was counted, for the last time."""
        self._again.stop()
        if self._control is not None:
            self._control.stop()
        self._heartbeat.stop()

    def _begin(self, listing: Listing) -> None:
        rundir = self._rundir = self._rundir or RunDirectory(self._settings.run_dir)  # first: with a slot in hand, nothing may fail
        self.board = self._heartbeat.start(self._settings.run_dir)
        self._control = Control(rundir, self._heartbeat.number, listing)
        self._control.start()

    def _try_again(self, listing: Listing) -> None:
        if os.getpid() != self._pid:  # a task has forked: this is for its parent to do
            self._again.stop()
            return
        try:
            self._begin(listing)
        except OSError as error:
            log.debug("no room on the scoreboard yet: %s", error)
        else:
            self._again.stop()
            log.info("scoreboard-available: this process is known again")
