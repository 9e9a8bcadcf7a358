"""Orders that come while the master starts, or was started so that a terminal's end does not matter: none of them ends it."""

import os
import pty
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import orders, rundir
from app.reload import Outcome
from tests.harness import ROOT, Process, wait_until


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Process]:
    """A server that has its lock, and goes on once somebody reads its PID file."""
    os.mkfifo(tmp_path / "pid")
    ports = ("--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--workers", "1")
    process = Process([sys.executable, str(ROOT / "run.py"), *ports, "--data-dir", "data", "--pid-file", str(tmp_path / "pid")])
    wait_until(lambda: rundir.master(process.home / "data/run") == process.pid, message=process.log)
    yield process
    process.clean()


def go_on(fifo: Path) -> None:
    """Let it; and leave a file there, or it would wait at its end as well."""
    assert fifo.read_text()
    fifo.unlink()
    fifo.write_text("")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_an_order_that_comes_before_there_are_handlers_waits_for_them(starting: Process, tmp_path: Path, number: int) -> None:
    starting.send_signal(number)
    go_on(tmp_path / "pid")
    wait_until(lambda: starting.out().endswith("ready\n"), 30.0, starting.log)
    if number == signal.SIGHUP:
        wait_until(lambda: "reload-done" in starting.log(), 30.0, starting.log)


def test_a_reload_that_is_asked_for_by_then_comes_to_an_end(starting: Process, tmp_path: Path) -> None:
    """What the master before has left says nothing of this one."""
    run_dir = starting.home / "data/run"
    Outcome(5, 5, 0).write(run_dir)
    reader = os.fork()
    if reader == 0:
        os._exit(orders.reload(run_dir))
    wait_until(lambda: signal.SIGHUP in pending(starting.pid), message=starting.log)
    go_on(tmp_path / "pid")
    ended = wait_until(lambda: os.waitpid(reader, os.WNOHANG)[0] and "reload-done" in starting.log(), 30.0, starting.log)
    assert ended


def test_one_that_is_asked_for_at_the_first_start_does_not_stumble(tmp_path: Path) -> None:
    assert Outcome.read(tmp_path) == Outcome()


def pending(pid: int) -> set[int]:
    """Signals that wait to be let in."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd"))
    return {number for number in range(1, 65) if mask & 1 << number - 1}


def test_under_nohup_a_terminal_that_is_closed_ends_nothing(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        program = f"exec {sys.executable} -m tests.roles idle 1 > out 2>&1"
        os.execve("/bin/sh", ["/bin/sh", "-c", program], os.environ | {"PYTHONPATH": str(ROOT)})
    said = tmp_path / "out"
    wait_until(lambda: said.exists() and "ready\n" in said.read_text())
    os.close(terminal)
    time.sleep(0.3)  # not for something to happen, but to see that it does not end
    alive = os.waitpid(pid, os.WNOHANG)[0] == 0
    if alive:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    assert alive
    assert said.read_text().count("reload-begins") <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1])
def test_what_comes_when_all_have_ended_does_not_change_the_exit_code(number: int) -> None:
    process = Process([sys.executable, "-m", "tests.roles", "idle", "1"], env={"PYTHONPATH": str(ROOT)})
    wait_until(lambda: process.out() == "ready\n", message=process.log)
    process.send_signal(signal.SIGTERM)
    while process.running():
        if "ended: " in process.log():
            process.send_signal(number)
    assert process.wait() == 0
    process.clean()
