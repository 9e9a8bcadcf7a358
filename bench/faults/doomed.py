"""`run.py`, whose gateways die of SIGKILL at named points: `python -m bench.faults.doomed --points A,B,C … COMMAND [flags of run.py]`.

The first gateway dies at the first point, its successor at the second, and so on; how many have died already is the size of the file
`deaths` in the data directory. A point may have a number, `before-commit:7`: then the seventh time that it is reached.

    before-commit    new tasks are about to be written          after-commit   they are written, and nobody was told
    before-dispatch  what says that a task is sent is about to be written
    after-dispatch   that is written, and nothing was sent      after-send     the line has left for the worker
    before-final     a final report is about to be written      after-final    it is written, and nobody was told
    in-apply         amid the transaction that brings the log into the tables
    in-recovery      amid what the next gateway makes of what it found
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import run
from app.child import Child
from app.settings import Settings


class Doom:
    """Dies at the `count`-th call. `data_dir` is where deaths are counted."""

    def __init__(self, data_dir: Path, count: int) -> None:
        self._path = data_dir / "deaths"
        self._left = count

    def __call__(self) -> None:
        """It is here."""
        self._left -= 1
        if self._left == 0:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(fd, b"x")
            os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, doom: Doom) -> None:
    """Have this process, which is patched for gevent already, die there."""
    recovery, sending, store = map(import_module, ("app.recovery", "app.sending", "app.store"))  # after the patching
    name = point.partition(":")[0]
    where: dict[str, tuple[Any, str, Callable[..., bool], bool]] = {
        "before-commit": (store.Store, "write", lambda self, tasks, changes, events: bool(tasks), False),
        "after-commit": (store.Store, "write", lambda self, tasks, changes, events: bool(tasks), True),
        "before-dispatch": (
            store.Store,
            "write",
            lambda self, tasks, changes, events: any(_sent(row) for row in (*tasks, *changes)),
            False,
        ),
        "after-dispatch": (sending.Sending, "send", lambda self, task, link: not task.sent, False),
        "after-send": (sending.Sending, "_leave", lambda self, task, link: link.connection is not None, True),
        "before-final": (store.Store, "write", lambda self, tasks, changes, events: any(row[2] for row in events), False),
        "after-final": (store.Store, "write", lambda self, tasks, changes, events: any(row[2] for row in events), True),
        "in-apply": (store.Store, "_sweep", lambda self, *_: True, True),
        "in-recovery": (recovery, "_claim", lambda *_: True, True),
    }
    owner, method, here, afterwards = where[name]
    setattr(owner, method, _doomed(getattr(owner, method), here, afterwards, doom))


def _sent(row: tuple[Any, ...]) -> bool:
    """Whether a row of a task names a worker."""
    return bool(row[7] if len(row) > 8 else row[5])


def _doomed(original: Callable[..., Any], here: Callable[..., bool], afterwards: bool, doom: Doom) -> Callable[..., Any]:
    @wraps(original)
    def call(*args: Any, **options: Any) -> Any:
        at_the_point = here(*args)
        if at_the_point and not afterwards:
            doom()
        result = original(*args, **options)
        if at_the_point and afterwards:
            if original.__name__ == "_leave" and args[2].connection is not None:
                args[2].connection.outbox.flush()  # it has left, whatever comes
            doom()
        return result

    return call


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--points", default="")
    parser.add_argument("--lease", type=float, default=0.0)
    own, others = parser.parse_known_args(argv)
    points = [point for point in own.points.split(",") if point]
    setattr(run, "run_gateway", partial(_run_gateway, points, own.lease))  # noqa: B010 - the role that the master forks
    return run.main(others)


def _run_gateway(points: list[str], lease: float, chosen: Settings, child: Child) -> None:
    """As `run.run_gateway`."""
    run._patch(child)
    server, pool = map(import_module, ("app.gateway.server", "app.pool"))
    if lease:
        pool.__dict__["LEASE"] = lease
    path = chosen.data_dir / "deaths"
    died = path.stat().st_size if path.exists() else 0
    if died < len(points):
        arm(points[died], Doom(chosen.data_dir, int(points[died].partition(":")[2] or 1)))
    server.serve(chosen, child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
