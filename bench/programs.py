"""The servers that a section starts and ends: Handoff itself, the floor, the SMTP sink. What is sent to them stands in loads.py."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from bench import build

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 20.0
STOP_LIMIT = 15.0

Process = subprocess.Popen[str]


class Broken(Exception):
    """A program ended, said something else than expected, or took too long; the message has what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready: the root of its processes, and where it listens."""

    pid: int
    host: str
    port: str
    path: str
    data_dir: Path = Path()


def python_server() -> str:
    """The command that starts the server of this working copy with this Python."""
    return shlex.join([sys.executable, str(ROOT / "run.py")])


@contextmanager
def handoff(command: str, *flags: str, **variables: str) -> Iterator[Server]:
    """The server on free ports, with its data in a directory that is gone afterwards. `variables` are added to its environment."""
    with tempfile.TemporaryDirectory(prefix="handoff-bench-") as room:
        words = [*shlex.split(command), "--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--data-dir", f"{room}/data", *flags]
        printed, log = Path(room, "printed"), Path(room, "log")
        with printed.open("w") as stdout, log.open("w") as stderr:
            process = subprocess.Popen(
                words, cwd=ROOT, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, process_group=0
            )
        try:
            where = _where(process.pid, _printed_until_ready(process, printed))
            yield replace(where, data_dir=Path(room, "data"))
        finally:
            _stop(process)
            said = log.read_text(errors="replace").splitlines()
            print(*(line for line in said if " INFO " not in line), sep="\n", file=sys.stderr)


def _printed_until_ready(process: subprocess.Popen[bytes], printed: Path) -> list[str]:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        lines = printed.read_text().splitlines()
        if "ready" in lines:
            return lines
        if process.poll() is not None:
            raise Broken(f"the server ended with {process.returncode} before it was ready; it printed {lines}")
        time.sleep(0.02)
    raise Broken(f"the server was not ready within {START_LIMIT:g} s; it printed {lines}")


def _where(pid: int, lines: list[str]) -> Server:
    for line in lines:
        before, found, url = line.partition("gateway listening on ws://")
        address, slash, path = url.partition("/")
        host, colon, port = address.rpartition(":")
        if found and not before and colon:
            return Server(pid, host.strip("[]"), port, slash + path)
    raise Broken(f"the server did not say where its gateway listens; it printed {lines}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise Broken(f"the server did not end within {STOP_LIMIT:g} s of TERM") from None


@contextmanager
def attended(*command: str) -> Iterator[Process]:
    """A small program that ends when its stdin closes. Raises `Broken` where it ends badly."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        _close(process.stdin)
        status = process.wait(STOP_LIMIT)
        _close(process.stdout)
    if status:
        raise Broken(f"{command[0]} ended with {status}")


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        pipe.close()


def next_line(process: Process) -> str:
    """The next line that an attended program prints. Raises `Broken` where there is none."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Broken(f"{process.args!r} ended without a word")
    return line.strip()


@contextmanager
def floor() -> Iterator[Server]:
    """npm `ws`, echoing."""
    with attended(*build.floor_command()) as process:
        yield Server(process.pid, "127.0.0.1", next_line(process), "/")


class Sink:
    """The SMTP sink, and what may be asked of it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.url = f"smtp://127.0.0.1:{int(next_line(process))}"

    def ask(self, command: str) -> dict[str, int]:
        """One command, one answer: `counts`, `delay MS` or `reset`."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(next_line(self._process))
        return answer


@contextmanager
def sink(delay_ms: int) -> Iterator[Sink]:
    """An SMTP server that confirms each mail after `delay_ms`."""
    with attended(str(build.program("sink")), str(delay_ms)) as process:
        yield Sink(process)
