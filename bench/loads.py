"""The load generator, as the sections run it: to its end, with the server's CPU time beside it, or in the background of something else."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import build, procs
from bench.programs import Broken, Process, Server, attended, next_line

LIMIT = 180.0

Result = dict[str, Any]


@dataclass(slots=True)
class Background:
    """A load that runs until its block ends; `result` is there from then on."""

    process: Process
    result: Result


def command(server: Server, mode: str, **options: float) -> list[str]:
    """The command line of a load generator; a keyword is one of its options."""
    words = [str(build.program("load")), mode, "--host", server.host, "--port", server.port, "--path", server.path]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words


def run(server: Server, mode: str, **options: float) -> Result:
    """One load from start to end. Raises `Broken` with its complaint where anything went wrong."""
    words = command(server, mode, **options)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise Broken(f"the load {mode!r} took longer than {LIMIT:g} s") from None
    return _result(mode, done.returncode, done.stdout, done.stderr)


def run_measured(server: Server, mode: str, **options: float) -> Result:
    """A closed loop from start to end; `cpu_share` in its result is CPU seconds of the server's tree per second of the measured period.

    A share and not a sum, because the tree is read a moment after each mark: the load goes on as it was around both of them.
    """
    words = command(server, mode, **options)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    marks: dict[str, procs.Reading] = {}
    complaints = []
    for line in process.stderr:
        if line in ("measuring\n", "measured\n"):
            marks[line.strip()] = procs.cpu(server.pid)
        else:
            complaints.append(line)
    printed, _ = process.communicate()
    result = _result(mode, process.returncode, printed, "".join(complaints))
    before, after = marks["measuring"], marks["measured"]
    return result | {"cpu_share": before.until(after) / (after.at - before.at)}


def _result(mode: str, status: int, printed: str, complaints: str) -> Result:
    if status:
        raise Broken(f"the load {mode!r} failed: {complaints.strip() or status}")
    result: Result = json.loads(printed)
    return result


@contextmanager
def background(server: Server, mode: str, **options: float) -> Iterator[Background]:
    """A paced load (`ping`, `trickle`) while the block runs; its result is there after the block. Raises `Broken` where it failed."""
    with attended(*command(server, mode, seconds=0, **options)) as process:
        load = Background(process, {})
        yield load
        assert process.stdin is not None
        process.stdin.close()
        load.result = json.loads(next_line(process))


@contextmanager
def idle(server: Server, connections: int) -> Iterator[None]:
    """That many idle connections, all of them open, while the block runs. Raises `Broken` where one of them was lost."""
    with attended(*command(server, "idle", connections=connections)) as process:
        next_line(process)
        yield
