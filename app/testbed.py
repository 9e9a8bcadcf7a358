"""What tests stand on: a program of ours in a session of its own, a server on free ports, and a wait that is not a sleep.

Standard library alone, and nothing of pytest: the fixtures are in `app/testing.py`. No part of the product imports this.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 30.0
"""Seconds that a server has to say that it is ready."""

_MARK = "TEST_SERVER_MARK"
T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 10.0, message: str | Callable[[], str] = "") -> T:
    """What the predicate says, as soon as that is true; fails the test where it is not within `timeout` seconds."""
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        late = waited >= timeout
        if value := predicate():
            return value
        if late:
            raise AssertionError(f"not within {timeout:g} s: {message() if callable(message) else message or predicate}")
        time.sleep(min(0.01 + waited / 20, 0.05))  # who waits for long need not ask so often


class Process:
    """Some program of ours, in a session of its own and with a mark in its environment, by which all that it starts is found again."""

    def __init__(self, command: list[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="handoff-test-"))
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        name, value = self._mark.split("=")
        with open(self.home / "out", "wb") as out, open(self.home / "log", "wb") as log:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                cwd=cwd or self.home,
                env=_clean_environ() | dict(env or {}) | {name: value},
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def out(self) -> str:
        """What it has printed."""
        return (self.home / "out").read_text(errors="replace")

    def log(self) -> str:
        """What it has logged."""
        return (self.home / "log").read_text(errors="replace")

    def tree(self) -> set[int]:
        """All processes that are left of it, itself included; those that only wait to be reaped are not."""
        return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)}

    def _is_ours(self, pid: int) -> bool:
        with suppress(OSError):
            state, session = _stat(pid)[0], int(_stat(pid)[3])
            if state not in "ZX":
                return session == self.pid or self._mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False

    def send_signal(self, number: int) -> None:
        """Send a signal to the first process alone."""
        self._popen.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """The exit code of the first process, once it has ended and so has everything that it started."""
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s\n{self.log()}") from None
        wait_until(lambda: not self.tree(), 2.0, lambda: f"orphans: {self.describe()}\n{self.log()}")
        return code

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 20.0) -> int:
        """Send a signal, and wait until nothing is left; the exit code."""
        self.send_signal(sig)
        return self.wait(timeout)

    def running(self) -> bool:
        """Whether the first process has not ended."""
        return self._popen.poll() is None

    def kill(self) -> None:
        """Kill all of it at once, as a power cut would."""
        for pid in self.tree():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def describe(self) -> str:
        """What is left, for a message."""
        return ", ".join(f"{pid} {_read(pid, 'cmdline').replace(chr(0), ' ')}" for pid in self.tree())

    def clean(self) -> None:
        """End what is left, fast, and remove its files. Fails the test where something had to be killed, or is left."""
        try:
            if self.running():
                self.stop(signal.SIGINT)
            assert not self.tree(), f"orphans: {self.describe()}"
        finally:
            self.kill()
            print(self.log(), end="")  # pytest shows it where the test failed
            shutil.rmtree(self.home, ignore_errors=True)


class Server(Process):
    """`run.py` with these flags, on free ports and a data directory of its own; ready when made. `under`: words before its command, of what
    it is to be run by."""

    def __init__(
        self,
        *flags: str,
        env: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
        cwd: Path | None = None,
        under: Sequence[str] = (),
    ) -> None:
        command = [*under, sys.executable, str(ROOT / "run.py"), *flags]
        for flag, value in (("--ws", "127.0.0.1:0"), ("--text", "127.0.0.1:0")):
            command += [] if flag in flags else [flag, value]
        command += [] if {"--workers", "--pool"} & set(flags) else ["--workers", "2"]
        super().__init__([*command, *(("--data-dir", str(data_dir)) if data_dir else ("--data-dir", "data"))], env, cwd)
        self.data_dir = data_dir or (cwd or self.home) / "data"
        try:
            wait_until(self._is_ready, START_LIMIT)
        except AssertionError as error:
            log = self.log()
            self.kill()
            raise AssertionError(f"{error}\n{log}") from None

    def _is_ready(self) -> bool:
        assert self.running(), f"ended before it was ready\n{self.log()}"
        return "ready\n" in self.out().splitlines(keepends=True)

    def _address(self, words: str) -> str:
        found = re.search(rf"^{words} (\S+)$", self.out(), re.MULTILINE)
        assert found, f"it did not print {words!r}, but {self.out()!r}"
        return found.group(1)

    @property
    def ws_url(self) -> str:
        """As `ws://127.0.0.1:8080/ws`."""
        return self._address("gateway listening on")

    @property
    def http_url(self) -> str:
        """As `http://127.0.0.1:8080/`."""
        return self._address("page at")

    @property
    def text_address(self) -> tuple[str, int]:
        """Host and port of the workers."""
        host, port = self._address("workers listening on").removeprefix("text://").rsplit(":", 1)
        return host, int(port)

    def worker_pids(self) -> list[int]:
        """The worker processes, by name."""
        return [pid for name, pid in sorted(self._roles()) if name.startswith("worker")]

    def gateway_pid(self) -> int:
        """The gateway process; waits while it is being replaced."""
        return wait_until(lambda: dict(self._roles()).get("gateway", 0), message="there is no gateway")

    def _roles(self) -> list[tuple[str, int]]:
        """Names and pids of the processes that have a role: children of the first, or the first itself."""
        ours = [pid for pid in self.tree() if pid == self.pid or _parent(pid) == self.pid]
        return [(_read(pid, "comm").strip(), pid) for pid in ours]


def _clean_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HANDOFF_") and name != "SMTP_URL"}


def _read(pid: int, name: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    return ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that follow the name: state, parent, process group, session."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(_stat(pid)[1])
    return 0
