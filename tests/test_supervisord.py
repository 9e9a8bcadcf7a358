"""`supervisord.conf` as it is, with a real supervisord in the background: Handoff is started, restarted, killed and stopped.

What only the master promises, whoever started it, is in `test_run.py`.
"""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, Process, TextClient, wait_until

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
WORKERS = 2
OURS = 2 + WORKERS  # with the master and the gateway


class Supervised(Process):
    """supervisord in a directory that is as a fresh clone, where only `var` holds nothing yet; ready when made."""

    def __init__(self, clone: Path) -> None:
        self.clone, self.var = clone, clone / "var"
        (clone / "run.py").symlink_to(ROOT / "run.py")
        shutil.copy(ROOT / "supervisord.conf", clone)
        self.var.mkdir()
        shutil.copy(ROOT / "var/.gitignore", self.var)
        self._port = socket.socket()  # bound, and never listening: nobody else is given the port between two starts
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self.text_address: tuple[str, int] = self._port.getsockname()
        settings = {"WS": "127.0.0.1:0", "TEXT": f"127.0.0.1:{self.text_address[1]}", "WORKERS": str(WORKERS)}
        env = {f"HANDOFF_{name}": value for name, value in settings.items()} | {"PATH": PATH}
        super().__init__(["supervisord", "-c", "supervisord.conf"], env, clone)
        try:
            self.wait_ready(1)
        except AssertionError:
            self.kill()
            raise

    def out(self) -> str:
        """What Handoff has said since the start of supervisord."""
        return self._text("handoff.log")

    def log(self) -> str:
        """What supervisord has said, and Handoff."""
        return super().log() + self.supervisor_log() + self.out()

    def supervisor_log(self) -> str:
        """What supervisord alone has said."""
        return self._text("supervisord.log")

    def _text(self, name: str) -> str:
        path = self.var / name
        return path.read_text(errors="replace") if path.exists() else ""

    def starts(self) -> int:
        """How often Handoff has come up."""
        return self.out().splitlines().count("ready")

    def wait_ready(self, starts: int) -> None:
        """Until it has come up so often."""
        wait_until(lambda: self.starts() == starts, 20.0, self.log)

    def ctl(self, *words: str) -> str:
        """What supervisorctl answers."""
        command = ["supervisorctl", "-c", "supervisord.conf", *words]
        done = subprocess.run(command, cwd=self.clone, env=os.environ | {"PATH": PATH}, stdout=subprocess.PIPE, timeout=30, check=False)
        return done.stdout.decode().strip()

    def wait_state(self, state: str) -> None:
        """Until `supervisorctl status` says so."""
        wait_until(lambda: re.match(rf"handoff +({state})\b", self.ctl("status")), message=self.log)

    def handoff(self) -> set[int]:
        """The processes of Handoff, without supervisord."""
        return self.tree() - {int(self._text("supervisord.pid"))}

    def ask(self, **request: Any) -> Any:
        """What the Text port answers."""
        with TextClient(self.text_address) as client:
            return client.ask(request)

    def clean(self) -> None:
        """End all of it, where that was not done."""
        try:
            if self.tree():
                self.ctl("shutdown")
                wait_until(lambda: not self.tree(), 20.0, self.describe)
        finally:
            self._port.close()
            super().clean()


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """One for all tests: each finds Handoff started and leaves it so, but for the last one, which ends everything."""
    running = Supervised(tmp_path_factory.mktemp("clone"))
    yield running
    running.clean()


def echo(supervised: Supervised) -> None:
    assert supervised.ask(function="echo", args={"text": "hello"}) == {"text": "hello"}


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a git repository, or no git")
def test_the_repository_has_var_and_nothing_in_it() -> None:
    kept = subprocess.run(["git", "ls-files", "var"], cwd=ROOT, capture_output=True, check=True)
    assert kept.stdout.split() == [b"var/.gitignore"]
    subprocess.run(["git", "check-ignore", "-q", "var/supervisord.log"], cwd=ROOT, check=True)


def test_it_is_up_with_one_command_and_runs_a_task(supervised: Supervised) -> None:
    echo(supervised)
    supervised.wait_state("STARTING|RUNNING")
    assert len(supervised.handoff()) == OURS


def test_all_that_it_writes_is_in_var_and_private(supervised: Supervised) -> None:
    assert {path.name for path in supervised.clone.iterdir()} == {"run.py", "supervisord.conf", "var"}
    assert stat.S_IMODE((supervised.var / "supervisord.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((supervised.var / "handoff.log").stat().st_mode) == 0o600


def test_its_limit_of_open_files_is_raised(supervised: Supervised) -> None:
    wanted = re.search(r"^minfds=(\d+)$", (ROOT / "supervisord.conf").read_text(), re.MULTILINE)
    assert wanted
    limits = [Path(f"/proc/{pid}/limits").read_text() for pid in supervised.handoff()]
    found = [int(soft) for text in limits for soft in re.findall(r"^Max open files +(\d+)", text, re.MULTILINE)]
    assert min(found) >= int(wanted[1])


def test_a_restart_makes_new_processes_and_binds_the_port_again(supervised: Supervised) -> None:
    before, starts = supervised.handoff(), supervised.starts()
    assert supervised.ctl("restart", "handoff").splitlines() == ["handoff: stopped", "handoff: started"]
    supervised.wait_state("RUNNING")
    supervised.wait_ready(starts + 1)
    now = supervised.handoff()
    assert len(now) == OURS
    assert not now & before
    echo(supervised)


def test_a_master_that_was_killed_is_started_again_and_nothing_is_left_of_the_old_one(supervised: Supervised) -> None:
    supervised.wait_state("RUNNING")
    before, starts = supervised.handoff(), supervised.starts()
    os.kill(int(supervised.ctl("pid", "handoff")), signal.SIGKILL)
    wait_until(lambda: not supervised.handoff() & before, 2.0, supervised.describe)
    supervised.wait_ready(starts + 1)
    assert "exited: handoff (terminated by SIGKILL; not expected)" in supervised.supervisor_log()
    assert len(supervised.handoff()) == OURS
    echo(supervised)


def test_a_stop_waits_for_running_tasks_and_a_shutdown_leaves_nothing(supervised: Supervised) -> None:
    with TextClient(supervised.text_address) as client:
        client.send({"id": "t1", "function": "sleep", "args": {"seconds": 1}})
        client.until(lambda message: message["event"] == "started")
        assert supervised.ctl("stop", "handoff") == "handoff: stopped"
        assert client.receive()["event"] == "succeeded"
    assert not supervised.handoff()
    supervised.wait_state("STOPPED")
    assert supervised.supervisor_log().splitlines()[-1].endswith("stopped: handoff (exit status 0)")
    assert supervised.ctl("shutdown") == "Shut down"
    wait_until(lambda: not supervised.tree(), message=supervised.describe)
    left = {path.name for path in supervised.var.iterdir() if not path.name.startswith("journal.")}
    assert left - {"run"} == {".gitignore", "handoff.log", "supervisord.log"}
