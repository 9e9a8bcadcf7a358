"""What an idle WebSocket connection holds: the server's memory with many of them less that without, divided."""

import time

from bench import loads, procs, programs
from bench.report import Section, Target

CONNECTIONS = 5000
KIB_EACH = 14.0
SETTLE = 1.0

_HEAD = ("", "before MiB", "with them MiB", "KiB each")


def measure(command: str, seconds: float, rounds: int) -> Section:
    """One server a round, fresh, so that none finds memory that another left free; the median is judged. `seconds` is not used."""
    del seconds
    readings = sorted((_round(command) for _ in range(rounds)), key=lambda reading: reading[1] - reading[0])
    rows = [_HEAD]
    for before, after in readings:
        rows.append(("", f"{before / 2**20:.1f}", f"{after / 2**20:.1f}", f"{_each(before, after):.2f}"))
    middle = _each(*readings[len(readings) // 2])
    target = Target(f"memory (PSS) of an idle WebSocket connection, the median of {rounds}", middle, KIB_EACH, "KiB")
    raw = [{"before": before, "after": after, "connections": CONNECTIONS} for before, after in readings]
    return Section(f"Memory: {CONNECTIONS:,} idle WebSocket connections; PSS of the whole tree", rows, [target], raw=raw)


def _each(before: int, after: int) -> float:
    return (after - before) / CONNECTIONS / 1024


def _round(command: str) -> tuple[int, int]:
    with programs.handoff(command) as server:
        with loads.idle(server, 5):
            pass  # what the first connection brings along once and for all is not an idle connection's
        time.sleep(SETTLE)
        before = procs.pss(server.pid)
        with loads.idle(server, CONNECTIONS):
            time.sleep(SETTLE)
            return before, procs.pss(server.pid)
