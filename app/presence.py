"""How a process is seen from outside, for those that run an event loop: its heartbeat on the scoreboard, and its control socket."""

from collections.abc import Callable
from typing import Any

from app.address import Address
from app.control import Control, Listing
from app.heartbeat import Heartbeat, Look
from app.rundir import RunDirectory
from app.scoreboard import Board
from app.settings import Settings


class Presence:
    """Of one process. `board` is the scoreboard, once it has begun; None where there was no room for a slot."""

    def __init__(self, loop: Any, settings: Settings, role: str, name: str, address: Address, look: Callable[[], Look]) -> None:
        self._settings = settings
        self._heartbeat = Heartbeat(loop, role, name, str(address), look)
        self._control: Control | None = None
        self.board: Board | None = None

    def start(self, listing: Listing) -> None:
        """Be seen from now on."""
        self.board = self._heartbeat.start(self._settings.run_dir)
        if self.board is not None:
            self._control = Control(RunDirectory(self._settings.run_dir), self._heartbeat.number, listing)
            self._control.start()

    def stop(self) -> None:
        """Say what was counted, for the last time."""
        if self._control is not None:
            self._control.stop()
        self._heartbeat.stop()
