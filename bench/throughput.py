"""CPU time and rate of small tasks, beside a floor that only echoes: the two take turns, and medians over the rounds are compared."""

from collections.abc import Iterator
from statistics import median

from bench import loads, programs
from bench.loads import Result
from bench.report import Section, Target

CONNECTIONS = 50
TARGETS = {1: 6.0, 20: 4.6}
"""By messages in flight on each connection: how many times the floor's CPU time a task may cost."""

_HEAD: tuple[str, ...] = ("", "in flight", "CPU µs each", "each/s", "p50 ms", "p99 ms", "max ms", "client µs", "ratio")


def measure(command: str, seconds: float, rounds: int) -> Section:
    """`rounds` times each of server and floor, at each number in flight. Raises `Broken` where a task was refused or lost."""
    with programs.handoff(command, "--durability", "off") as server, programs.floor() as floor:
        raw = list(_rounds(server, floor, seconds, rounds))
    rows, targets = [_HEAD], []
    for outstanding, most in TARGETS.items():
        tasks = _median(raw, "tasks", outstanding)
        echo = _median(raw, "echo", outstanding)
        ratio = tasks["cpu_us"] / echo["cpu_us"]
        rows += [_row("floor: ws echo", outstanding, echo, ""), _row("Handoff: task", outstanding, tasks, f"{ratio:.2f}")]
        targets.append(Target(f"CPU of a task as a ratio to the floor, {outstanding} in flight", ratio, most, "times"))
    title = f"Throughput: {CONNECTIONS} connections, 100-byte echo tasks, durability off; medians of {rounds} rounds of {seconds:g} s"
    return Section(title, rows, targets, ["In flight: on each connection. CPU: utime + stime of the whole tree."], raw)


def _rounds(server: programs.Server, floor: programs.Server, seconds: float, rounds: int) -> Iterator[Result]:
    for number in range(rounds):
        warmup = max(0.3, seconds / (4 if number else 2))  # a just-in-time compiler wants more of it the first time
        for outstanding in TARGETS:
            for target, mode in ((floor, "echo"), (server, "tasks")):
                yield _one(target, mode, outstanding, warmup, seconds)


def _one(target: programs.Server, mode: str, outstanding: int, warmup: float, seconds: float) -> Result:
    result = loads.run_measured(target, mode, connections=CONNECTIONS, outstanding=outstanding, warmup=warmup, seconds=seconds)
    return result | {"cpu_us": result["cpu_share"] / result["per_second"] * 1e6}


def _median(raw: list[Result], mode: str, outstanding: int) -> dict[str, float]:
    chosen = [result for result in raw if result["mode"] == mode and result["outstanding"] == outstanding]
    figures = {name: median(result[name] for result in chosen) for name in ("cpu_us", "per_second", "client_cpu_us")}
    return figures | {name: median(result["latency_us"][name] for result in chosen) / 1e3 for name in ("p50", "p99", "max")}


def _row(what: str, outstanding: int, figures: dict[str, float], ratio: str) -> tuple[str, ...]:
    spent = f"{figures['cpu_us']:.1f}", f"{figures['per_second']:,.0f}"
    times = (f"{figures[name]:.2f}" for name in ("p50", "p99", "max"))
    return (what, str(outstanding), *spent, *times, f"{figures['client_cpu_us']:.1f}", ratio)
