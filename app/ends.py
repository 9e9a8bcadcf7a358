"""How a worker process ended, and what is left of it in the run directory. Files only, and the standard library alone.

    NAME-PID.stack    its watchdog's: what held the hub, and the stacks where it was ended for that
    NAME-PID.over     the task that was past its hard limit, and held everything, when the process was ended for it
    NAME-PID.end      the master's, who alone sees it: the signal or exit code, and the most memory that it took, or that something took
                      which it had started and waited for (`ru_maxrss` of wait4(2))

Who writes the first two is in `workers/`; they are told to clients as they are, cut to `_MOST_WORDS`.
"""

import json
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

OVERRUN_HEAD = 512
"""Bytes at the beginning of an overrun file that name the task that may be ended now; it was, where more follows: the stacks."""

LAST_SIGNAL = signal.SIGRTMIN + 3
"""Makes a process of ours that runs tasks write down its stacks, and end."""

STALE_AFTER = 60.0
"""Seconds after which nobody asks for what is left of a process."""

_MOST_WORDS = 4096
_LEFT = re.compile(r".+-(\d+)\.(?:stack|over|end)\Z")
_MIB = 1024


class Overrun(NamedTuple):
    """The task that a process was ended for: who sent it, which it was, and its hard limit in seconds."""

    journal: str
    id: str
    attempt: int
    limit: float


class Remains(NamedTuple):
    """What is known of a process that is gone. `details` go into the error of each task that it had."""

    how: str = "is gone"
    details: Mapping[str, Any] = MappingProxyType({})
    overrun: Overrun | None = None


def stack_path(run_dir: Path, name: str, pid: int) -> Path:
    """Of the watchdog's file."""
    return run_dir / f"{name}-{pid}.stack"


def overrun_path(run_dir: Path, name: str, pid: int) -> Path:
    """Of the file that says who overran."""
    return run_dir / f"{name}-{pid}.over"


def end_path(run_dir: Path, name: str, pid: int) -> Path:
    """Of the master's file."""
    return run_dir / f"{name}-{pid}.end"


def killed_by(status: int) -> str:
    """As `signal SIGKILL` or `exit code 3`, from an exit code as `subprocess` has it: negative for a signal."""
    if status >= 0:
        return f"exit code {status}"
    if -status == LAST_SIGNAL:
        return f"signal {LAST_SIGNAL} (the hard limit of a task)"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:  # one of the nameless real-time signals
        return f"signal {-status}"


def leave_word(run_dir: Path, name: str, pid: int, end: dict[str, Any]) -> None:
    """Say how a process ended; whoever looks sees all of it or nothing. What nobody asked for in time is removed."""
    sweep(run_dir)
    path = end_path(run_dir, name, pid)
    unfinished = path.with_suffix(".new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump(end, file)
    unfinished.replace(path)


def sweep(run_dir: Path) -> None:
    """Remove what is left of processes that ended long ago."""
    for path in run_dir.iterdir():
        found = _LEFT.match(path.name)
        with suppress(FileNotFoundError):
            if found and not Path(f"/proc/{found.group(1)}").exists() and time.time() - path.stat().st_mtime > STALE_AFTER:
                path.unlink()


def remains(run_dir: Path, name: str, pid: int) -> Remains:
    """Read what a process left, and remove it."""
    stack = _take(stack_path(run_dir, name, pid))
    over = _take(overrun_path(run_dir, name, pid))
    end = _take(end_path(run_dir, name, pid))
    details: dict[str, Any] = json.loads(end) if end else {}
    how = f"ended with {details['killed_by']}" if details else "is gone"
    if details.pop("out_of_memory", False):
        how += ", probably out of memory"
    if len(over) > OVERRUN_HEAD:
        stack = over[OVERRUN_HEAD:]
    if stack:
        details["stack"] = stack[:_MOST_WORDS].decode(errors="replace")
    return Remains(how, details, Overrun(*json.loads(over[:OVERRUN_HEAD])) if len(over) > OVERRUN_HEAD else None)


def _take(path: Path) -> bytes:
    try:
        words = path.read_bytes()
        path.unlink()
    except FileNotFoundError:
        return b""
    return words


class OomKills:
    """Notices that the kernel has killed something of our control group for want of memory; of the machine, where there is no group."""

    def __init__(self) -> None:
        self._path = next((path for path in _oom_files() if path.exists()), None)
        self._seen = self._count()

    def again(self) -> bool:
        """Whether there was one since it was asked last."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        with suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", self._path.read_text(), re.MULTILINE) if self._path else None
            return int(found.group(1)) if found else 0
        return 0


def _oom_files() -> list[Path]:
    """See cgroup-v2, memory.events; in version 1 it is memory.oom_control."""
    group, root = "", Path("/sys/fs/cgroup")
    found = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                found.append(root / group.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(root / "memory" / group.lstrip("/") / "memory.oom_control")
    return [*found, root / "memory.events", Path("/proc/vmstat")]


def peak(max_rss: int) -> int:
    """Of what the kernel counts in KiB (`ru_maxrss`, VmHWM), the MiB."""
    return round(max_rss / _MIB)
