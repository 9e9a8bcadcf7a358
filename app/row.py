"""The master's row on the scoreboard: that it lives, and how often it has started a process in the place of another. No gevent here."""

import logging
from pathlib import Path

from app.heartbeat import who
from app.scoreboard import Board, Slot

log = logging.getLogger(__name__)


class Row:
    """It is written where something changes: the master has no beat, it only waits."""

    def __init__(self, run_dir: Path) -> None:
        self._slot: Slot | None = None
        self._respawns: dict[str, int] = {}
        self._who = who("master", "master", "")
        try:
            self._slot = Board(run_dir, make=True).take()
        except OSError as error:
            log.error("scoreboard-unavailable: nothing will be known of this process: %s", error)
        self._write()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What its forks have to close, before they have a row of their own."""
        return self._slot.board.descriptors if self._slot is not None else ()

    def respawned(self, role: str) -> None:
        """A process of this role is started in the place of another."""
        self._respawns[role] = self._respawns.get(role, 0) + 1
        self._write()

    def _write(self) -> None:
        if self._slot is not None:
            idle = {
                "connections": 0,
                "began": 0,
                "busy": 0,
                "running": [],
                "gauges": {},
                "rate": 0.0,
                "lag": 0.0,
                "beat_at": 0.0,
                "memory": 0,
            }
            self._slot.write({**self._who, **idle, "counts": {"respawns": self._respawns}})
