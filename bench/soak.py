"""A million tasks one after the other: whether memory and the journal's file stay as they are, as a curve."""

import os
from dataclasses import dataclass

from bench import loads, procs, programs
from bench.report import Section, Target

TASKS = 1_000_000
RETENTION = 5
"""Seconds for which finished tasks are kept here; in production a day, and the same curve is that much longer."""

POINTS = 20
GROWTH = 1.25
"""How much larger the largest of the last half may be than the largest of the half before."""

_HEAD = ("tasks", "each/s", "memory MiB", "journal MiB", "its log MiB")


@dataclass(frozen=True, slots=True)
class Point:
    """After so many tasks: the rate up to here, PSS of the whole tree, sizes of the journal's files, in bytes."""

    tasks: int
    rate: float
    memory: int
    file: int
    log: int


def measure(command: str, seconds: float, rounds: int) -> Section:
    """`rounds` has no meaning here; `seconds` is how long tasks are sent between two looks. Raises `Broken` where a task was lost."""
    del rounds
    return soak(command, seconds, TASKS)


def soak(command: str, seconds: float, tasks: int, retention: float = RETENTION) -> Section:
    """Send so many tasks, and look now and then."""
    points: list[Point] = []
    with programs.handoff(command, "--retention", str(retention)) as server:
        done = 0
        while done < tasks:
            result = loads.run(server, "tasks", connections=50, outstanding=20, warmup=0.1, seconds=seconds)
            done += int(result["finished"])
            points.append(_look(server, done, result["per_second"]))
    shown = points[:: max(1, len(points) // POINTS)]
    rows = [_HEAD, *(_row(point) for point in shown)]
    targets = [
        Target("growth of memory, the second half to the first", _growth([point.memory for point in points]), GROWTH, "times"),
        Target(
            "growth of the journal, the second half to the first", _growth([point.file + point.log for point in points]), GROWTH, "times"
        ),
    ]
    remarks = [f"Memory: PSS of the whole tree. Finished tasks are kept for {retention:g} s."]
    return Section(
        f"Soak: {done:,} durable echo tasks, a look every {seconds:g} s", rows, targets, remarks, [vars_of(point) for point in points]
    )


def vars_of(point: Point) -> dict[str, float]:
    """A point as JSON has it."""
    return {"tasks": point.tasks, "per_second": point.rate, "memory": point.memory, "file": point.file, "log": point.log}


def _look(server: programs.Server, done: int, rate: float) -> Point:
    sizes = [os.path.getsize(path) if path.exists() else 0 for path in (server.data_dir / "journal.db", server.data_dir / "journal.db-wal")]
    return Point(done, rate, procs.pss(server.pid), *sizes)


def _growth(figures: list[int]) -> float:
    half = len(figures) // 2
    return max(figures[half:]) / max(figures[:half] or figures)


def _row(point: Point) -> tuple[str, ...]:
    sizes = (f"{size / 2**20:.1f}" for size in (point.memory, point.file, point.log))
    return (f"{point.tasks:,}", f"{point.rate:,.0f}", *sizes)
