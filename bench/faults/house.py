"""The servers of the rows: with our tasks, in a session of their own, on a data directory that outlives them; dying where told, or under a
real supervisord."""

import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.faults.tasks import EFFECTS
from tests.harness import ROOT, START_LIMIT, Process, Server, wait_until
from tests.supervision import Supervised

FLAGS = ("--tasks", "bench.faults.tasks", "--graceful", "5", "--log-level", "info")


class House(Server):
    """`run.py`, or with `points` the same whose gateways die there, one after the other (`bench/faults/doomed.py`). Ready when made."""

    def __init__(
        self,
        data_dir: Path,
        effects: Path,
        *flags: str,
        points: tuple[str, ...] = (),
        lease: float = 0.0,
        under: tuple[str, ...] = (),
        command: str = "start",
        env: Mapping[str, str] | None = None,
    ) -> None:
        doomed = [*(("--points", ",".join(points)) if points else ()), *(("--lease", str(lease)) if lease else ())]
        program = ["-m", "bench.faults.doomed", *doomed] if doomed else [str(ROOT / "run.py")]
        own = ("--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--data-dir", str(data_dir))
        self._command = [*under, sys.executable, *program, command, *FLAGS, *flags, *own]
        self._env = {EFFECTS: str(effects), **(env or {})}
        Process.__init__(self, self._command, self._env, ROOT)
        self.data_dir, self.effects = data_dir, effects
        try:
            wait_until(self._is_ready, START_LIMIT)
        except AssertionError:
            self.kill()
            raise

    def end(self) -> None:
        """As `clean`, and keeps the log to itself."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.clean()

    def gateway_pid(self) -> int:
        """As in `Server`; one that was killed often is replaced later and later."""
        return wait_until(lambda: dict(self._roles()).get("gateway", 0), 60, "there is no gateway")

    def start_in_vain(self) -> tuple[int, str]:
        """The same once more, where it cannot start: its exit code, and what it has said."""
        process = Process(self._command, self._env, ROOT)
        try:
            return process.wait(START_LIMIT), process.log()
        finally:
            with contextlib.redirect_stdout(io.StringIO()):
                process.clean()


class Service(Supervised):
    """The same under supervisord, in one of its two forms."""

    def __init__(self, room: Path, effects: Path, form: str, **settings: str) -> None:
        room.mkdir()
        settings |= {"TASKS": "bench.faults.tasks", "GRACEFUL": "5"}
        super().__init__(room, form, {f"HANDOFF_{name}": value for name, value in settings.items()} | {EFFECTS: str(effects)})
        self.data_dir, self.effects = self.var, effects

    def end(self) -> None:
        """As `clean`, and keeps the log to itself."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.clean()


def deaths(data_dir: Path) -> int:
    """How many gateways have died at their points."""
    path = data_dir / "deaths"
    return path.stat().st_size if path.exists() else 0
