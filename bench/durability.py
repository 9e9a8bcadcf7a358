"""What it costs to have tasks on the disk: the three durabilities take turns, beside what one fdatasync takes on the same disk."""

import os
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench import loads, programs
from bench.loads import Result
from bench.report import Section, Target

CONNECTIONS, OUTSTANDING = 50, 20
DURABILITIES = ("off", "normal", "full")
TIMES_SLOWER = 2.0
FSYNCS_LATER = 2.0

_SYNCS = 200
_COUNTED = re.compile(r"^handoff_(tasks_accepted|journal_transactions)_total (\S+)$", re.MULTILINE)
_COUNTED_AFTER = 0.5
"""Seconds after which everything that a process has counted is to be read."""
_HEAD = ("", "connections", "in flight", "CPU µs each", "each/s", "p50 ms", "p99 ms", "max ms", "tasks a transaction")


def measure(command: str, seconds: float, rounds: int) -> Section:
    """`rounds` times each durability, with many tasks in flight and with one. Raises `Broken` where a task was refused or lost."""
    with ExitStack() as stack:
        servers = {durability: stack.enter_context(programs.handoff(command, "--durability", durability)) for durability in DURABILITIES}
        sync = _fdatasync(servers["full"].data_dir)
        raw = list(_rounds(servers, seconds, rounds))
    many, one = ({name: _median(raw, name, outstanding) for name in DURABILITIES} for outstanding in (OUTSTANDING, 1))
    rows = [_HEAD, *(_row(name, CONNECTIONS, OUTSTANDING, many[name]) for name in DURABILITIES)]
    rows += [_row(name, 1, 1, one[name]) for name in DURABILITIES]
    targets = [
        Target(
            f"tasks/s with off to tasks/s with full, {OUTSTANDING} in flight",
            many["off"]["rate"] / many["full"]["rate"],
            TIMES_SLOWER,
            "times",
        ),
        Target(
            "what full adds to the median latency, 1 in flight", (one["full"]["p50"] - one["off"]["p50"]) / sync, FSYNCS_LATER, "fdatasyncs"
        ),
    ]
    title = f"Durability: a 100-byte echo task, events final; medians of {rounds} rounds of {seconds:g} s"
    thread, fsyncs = one["normal"]["p50"] - one["off"]["p50"], one["full"]["p50"] - one["normal"]["p50"]
    remarks = [
        f"An fdatasync after 4 KiB at the end of a file, on the same disk: {sync:.2f} ms (median of {_SYNCS}).",
        f"With 1 in flight, {thread:.2f} ms of what full adds are there without fsyncs too: a thread that writes is asked, and answers, "
        f"{1 / one['normal']['shared']:.1f} times a task. The fsyncs themselves are {fsyncs:.2f} ms: {fsyncs / sync:.1f} fdatasyncs.",
    ]
    return Section(title, rows, targets, remarks, raw)


def _rounds(servers: dict[str, programs.Server], seconds: float, rounds: int) -> Iterator[Result]:
    for _ in range(rounds):
        for outstanding, connections in ((OUTSTANDING, CONNECTIONS), (1, 1)):
            for durability, server in servers.items():
                options = {"connections": connections, "outstanding": outstanding, "warmup": max(0.3, seconds / 4), "seconds": seconds}
                before = _counted(server)
                result = loads.run_measured(server, "tasks", **options)
                time.sleep(_COUNTED_AFTER)
                counted = {name: count - before[name] for name, count in _counted(server).items()}
                yield result | counted | {"durability": durability}


def _counted(server: programs.Server) -> dict[str, float]:
    """Tasks and transactions, by the server's own metrics."""
    with urllib.request.urlopen(f"http://{server.host}:{server.port}/metrics", timeout=10) as answer:
        return {name: float(value) for name, value in _COUNTED.findall(answer.read().decode())}


def _fdatasync(directory: Path) -> float:
    """The median of what it takes to have 4 KiB more on the disk, in milliseconds: the end of a log that grows."""
    descriptor = os.open(directory / "fdatasync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    took = []
    try:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            os.write(descriptor, bytes(4096))
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return median(took) * 1e3


def _median(raw: list[Result], durability: str, outstanding: int) -> dict[str, float]:
    chosen = [result for result in raw if result["durability"] == durability and result["outstanding"] == outstanding]
    figures = {name: median(result["latency_us"][name] for result in chosen) / 1e3 for name in ("p50", "p99", "max")}
    cpu = median(result["cpu_share"] / result["per_second"] * 1e6 for result in chosen)
    shared = median(result["tasks_accepted"] / max(1.0, result["journal_transactions"]) for result in chosen)
    return figures | {"rate": median(result["per_second"] for result in chosen), "cpu": cpu, "shared": shared}


def _row(name: str, connections: int, outstanding: int, figures: dict[str, float]) -> tuple[str, ...]:
    times = (f"{figures[key]:.2f}" for key in ("p50", "p99", "max"))
    shared = "-" if name == "off" else f"{figures['shared']:.1f}"
    return (name, str(connections), str(outstanding), f"{figures['cpu']:.1f}", f"{figures['rate']:,.0f}", *times, shared)
