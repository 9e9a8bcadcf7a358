"""What a tree of processes spent and holds, read from /proc: CPU time and proportional memory. Linux alone."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat. CPU times in seconds; `reaped` is what its children spent that have died and were waited for."""

    pid: int
    parent: int
    spent: float
    reaped: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tree had spent at a moment: CPU seconds by process, and when (monotonic seconds)."""

    at: float
    spent: dict[int, float]

    def until(self, later: "Reading") -> float:
        """CPU seconds that the tree spent from this reading to a later one.

        A process that died in between is counted through its parent's reaped time. Where the parent died with it, its last stretch is lost.
        """
        total = sum(later.spent.values()) - sum(self.spent.values())
        return max(total, 0.0)


def read(pid: int) -> Process | None:
    """One process, or None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything, brackets and spaces too
    user, system, dead_user, dead_system = (int(field) for field in fields[11:15])
    return Process(pid, int(fields[1]), (user + system) * _TICK, (dead_user + dead_system) * _TICK)


def tree(root: int) -> list[Process]:
    """The process and all that descend from it, at about one moment."""
    found = [read(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()]
    children: dict[int, list[Process]] = defaultdict(list)
    for process in found:
        if process is not None:
            children[process.parent].append(process)
    whole = [process for process in found if process is not None and process.pid == root]
    for process in whole:  # grows as it is walked
        whole.extend(children[process.pid])
    return whole


def cpu(root: int) -> Reading:
    """The CPU time of a whole tree up to now."""
    at = time.monotonic()
    return Reading(at, {process.pid: process.spent + process.reaped for process in tree(root)})


def pss(root: int) -> int:
    """The proportional set size of a whole tree, in bytes: shared pages are divided among those who share them."""
    return sum(_pss_of(process.pid) for process in tree(root))


def _pss_of(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = [line.split()[1] for line in text.splitlines() if line.startswith("Pss:")]
    return int(sizes[0]) * 1024 if sizes else 0
