"""In the background: `start -d`, and the commands that find what runs there. Real processes, and a look for orphans after each test."""

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import ROOT, TextClient, wait_until

QUIET = {name: value for name, value in os.environ.items() if not name.startswith("HANDOFF_") and name != "SMTP_URL"}


class Background:
    """A server of its own in a directory of its own, and the command line to steer it by."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.data_dir = place / "data"

    def run(self, *words: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """One command, to its end; `data` is the data directory."""
        ports = ("--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--workers", "1", "--data-dir", "data")
        command = [sys.executable, str(ROOT / "run.py"), *words, *ports]
        return subprocess.run(command, cwd=self.place, env=QUIET | env, capture_output=True, text=True, timeout=timeout, check=False)

    def start(self, *words: str) -> str:
        """Start it; what it announced."""
        ran = self.run("start", "-d", *words)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @property
    def pid(self) -> int:
        """As the PID file has it."""
        return int((self.data_dir / "run/master.pid").read_text())

    @property
    def log(self) -> str:
        """All that was said."""
        return (self.data_dir / "handoff.log").read_text()

    def outputs(self) -> set[str]:
        """The files that stdout and stderr of all processes are."""
        return {os.readlink(f"/proc/{pid}/fd/{fd}") for pid in self.tree() for fd in (1, 2)}

    def tree(self) -> set[int]:
        """Whoever has our data directory for a parent of an open file, or our place to work in: master, children and theirs."""
        return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and self._is_here(path)}

    def _is_here(self, process: Path) -> bool:
        with suppress(OSError):
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            return state not in "ZX" and Path(os.readlink(process / "cwd")) == self.place
        return False


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Background]:
    one = Background(tmp_path)
    yield one
    one.run("stop")
    left = one.tree()
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left


def text_address(announced: str) -> tuple[str, int]:
    found = re.search(r"text://(\S+):(\d+)", announced)
    assert found
    return found.group(1), int(found.group(2))


def test_it_returns_when_ready_and_what_it_says_goes_into_a_file(house: Background) -> None:
    announced = house.start()
    assert announced.endswith("/\nready\n")
    with TextClient(text_address(announced)) as client:
        assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
    assert os.getsid(house.pid) == house.pid
    assert {os.readlink(f"/proc/{house.pid}/fd/{fd}") for fd in (1, 2)} == {str(house.data_dir / "handoff.log")}
    assert {stat.S_IMODE((house.data_dir / name).stat().st_mode) for name in ("handoff.log", "run/master.pid")} == {0o600}
    assert "link-up: worker-1" in house.log
    assert {Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") for pid in house.tree()} == {
        f"handoff: master {house.data_dir}".encode(),
        b"handoff: worker-1",
        b"handoff: gateway",
    }


def test_it_is_started_once_and_stopped_once(house: Background) -> None:
    assert house.run("stop").returncode == 7
    house.start()
    pid = house.pid
    again = house.run("start", "-d")
    assert again.returncode == 2
    assert "another one runs with" in again.stderr
    assert house.pid == pid
    stopped = house.run("stop")
    assert (stopped.returncode, stopped.stdout) == (0, f"handoff: stopped (pid {pid})\n")
    assert not house.tree()
    assert not (house.data_dir / "run/master.pid").exists()
    assert "nothing runs with" in house.run("stop").stderr


@pytest.mark.parametrize("gently", [False, True])
def test_a_stop_waits_for_tasks_only_where_it_is_told_to(house: Background, gently: bool) -> None:
    announced = house.start()
    with TextClient(text_address(announced)) as client:
        client.send({"id": "t1", "function": "sleep", "args": {"seconds": 3 if gently else 60}})
        client.until(lambda message: message.get("event") == "started")
        assert house.run("stop", *(["-g"] if gently else [])).returncode == 0
        if gently:
            assert client.until(lambda message: message.get("event") != "progress")["event"] == "succeeded"
    assert not house.tree()


def test_a_restart_is_a_stop_where_there_is_something_to_stop_and_a_start(house: Background) -> None:
    assert house.run("restart", "-d").returncode == 0
    before = house.tree()
    ran = house.run("restart", "-d")
    assert (ran.returncode, ran.stdout.endswith("ready\n")) == (0, True)
    assert not before & house.tree()


def test_a_reload_says_whether_the_code_has_loaded(house: Background) -> None:
    assert house.run("reload").returncode == 7
    module = house.place / "mine.py"
    module.write_text("")
    house.start("--tasks", "mine")
    before = house.tree()
    assert house.run("reload").stdout == f"handoff: reloaded (pid {house.pid})\n"
    wait_until(lambda: before & house.tree() == {house.pid}, 10, lambda: house.log)
    module.write_text("import nosuch\n")
    failed = house.run("reload")
    assert failed.returncode == 3
    assert "what served before serves on" in failed.stderr
    module.write_text("import json as good\n")
    assert house.run("reload").returncode == 0


def test_what_is_printed_goes_to_the_new_file_too_when_the_log_is_rotated(house: Background) -> None:
    (house.place / "mine.py").write_text("from workers import task\n\n@task\ndef say(word: str):\n    print(word, flush=True)\n")
    announced = house.start("--tasks", "mine")
    with TextClient(text_address(announced)) as client:
        client.ask({"function": "say", "args": ["before"]})
        (house.data_dir / "handoff.log").rename(house.data_dir / "old.log")
        os.kill(house.pid, signal.SIGUSR1)
        wait_until(lambda: house.outputs() == {str(house.data_dir / "handoff.log")})
        client.ask({"function": "say", "args": ["after"]})
    assert "after" in house.log.splitlines()
    assert "before" in (house.data_dir / "old.log").read_text().splitlines()


def test_what_does_not_start_says_why_where_it_was_started(house: Background) -> None:
    ran = house.run("start", "-d", "--tasks", "nosuch.module")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "nosuch" in ran.stderr
    assert f"all of that is in {house.data_dir / 'handoff.log'}" in ran.stderr
    assert not house.tree()


def test_what_breaks_the_master_is_told_too(house: Background) -> None:
    (house.place / "setproctitle.py").write_text("import nosuch\n")
    ran = house.run("start", "-d", PYTHONPATH=str(house.place))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "No module named 'nosuch'" in ran.stderr
    assert not house.tree()


def test_a_number_that_is_somebody_elses_by_now_is_not_signalled(house: Background) -> None:
    """The file names a process that is none of ours, and its master was killed."""
    house.start()
    os.kill(house.pid, signal.SIGKILL)
    wait_until(lambda: not house.tree(), 5)
    with subprocess.Popen(["sleep", "300"]) as stranger:
        (house.data_dir / "run/master.pid").write_text(f"{stranger.pid}\n")
        assert [house.run(command).returncode for command in ("stop", "reload")] == [7, 7]
        assert stranger.poll() is None
        stranger.kill()
    house.start()
    assert house.pid in house.tree()


def test_the_pid_file_may_be_elsewhere(house: Background) -> None:
    house.start("--pid-file", "my.pid")
    pid = int((house.place / "my.pid").read_text())
    assert house.run("stop").stdout == f"handoff: stopped (pid {pid})\n"
    assert not (house.place / "my.pid").exists()


def test_switches_go_with_their_commands_alone(house: Background) -> None:
    for words, said in ((("stop", "-d"), "--daemon: goes with start and restart alone"), (("-g", "start"), "--gently: goes with stop")):
        ran = house.run(*words)
        assert ran.returncode == 2
        assert said in ran.stderr
