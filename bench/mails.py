"""A thousand mails to a slow SMTP server, and what everybody else notices of them: pings, a trivial task now and then, memory."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench import loads, procs, programs
from bench.loads import Result
from bench.report import Section, Target, percentile

MAILS = 1000
CONNECTIONS = 10
DELAY_MS = 50
PACE_MS = 20
HELD = 100
USED_MAILS = 5000
HELD_DELAY_MS = 3000

WALL_SECONDS = 0.75
PING_MS = 20.0
TRIVIAL_MS = 100.0
HELD_MIB = 80.0

ARRANGEMENTS = (("100 slots", ("--workers", "2", "--concurrency", "50")), ("defaults", ()))

_HEAD: tuple[str, ...] = ("", "wall s", "mails at once", "ping p50", "ping p99", "task p50", "task p99 ms", "samples", "CPU µs a mail")


def measure(command: str, seconds: float, rounds: int) -> Section:
    """Each arrangement `rounds` times, and memory; `seconds` is not used. Raises `Broken` where a mail was lost."""
    del seconds
    rows, targets, raw = [_HEAD], list[Target](), list[Result]()
    with programs.sink(DELAY_MS) as sink:
        for name, flags in ARRANGEMENTS:
            with programs.handoff(command, *flags, HANDOFF_SMTP_URL=sink.url) as server:
                results = [_round(server, sink) for _ in range(rounds + 1)][1:]  # the first warms up
            raw += [result | {"arrangement": name} for result in results]
            figures = _figures(results)
            rows.append(_row(name, figures))
            targets += _targets(name, figures)
        fresh, used = _memory(command, sink)
    targets.append(Target(f"memory (PSS) of the whole tree with {HELD} mails in flight, defaults", fresh / 2**20, HELD_MIB, "MiB"))
    title = f"Mails: {MAILS} send_mail tasks at once over {CONNECTIONS} connections, {DELAY_MS} ms of SMTP each; {rounds} rounds"
    remarks = [f"Wall: median. A ping and a trivial task every {PACE_MS} ms on a connection of their own each, all rounds taken together."]
    remarks.append(f"Memory is judged on a fresh server; after {USED_MAILS:,} mails it was {used / 2**20:.1f} MiB.")
    return Section(title, rows, targets, remarks, raw)


def _round(server: programs.Server, sink: programs.Sink) -> Result:
    sink.ask("reset")
    before = procs.cpu(server.pid)
    with loads.background(server, "ping", every=PACE_MS) as ping, loads.background(server, "trickle", every=PACE_MS) as trickle:
        result = loads.run(server, "flood", tasks=MAILS, connections=CONNECTIONS)
    spent = before.until(procs.cpu(server.pid))
    counts = sink.ask("counts")
    if counts["mails"] != MAILS:
        raise programs.Broken(f"{MAILS} mails were reported as sent, and {counts['mails']} came")
    return result | {"ping": ping.result, "trickle": trickle.result, "sink": counts, "cpu_us": spent / MAILS * 1e6}


def _figures(results: list[Result]) -> dict[str, float]:
    pings, tasks = ([sample / 1e3 for result in results for sample in result[name]["samples_us"]] for name in ("ping", "trickle"))
    return {
        "wall": median(result["seconds"] for result in results),
        "peak": max(result["sink"]["peak"] for result in results),
        "ping_p50": percentile(pings, 0.5),
        "ping_p99": percentile(pings, 0.99),
        "task_p50": percentile(tasks, 0.5),
        "task_p99": percentile(tasks, 0.99),
        "samples": min(len(pings), len(tasks)),
        "cpu_us": median(result["cpu_us"] for result in results),
    }


def _row(name: str, figures: dict[str, float]) -> tuple[str, ...]:
    times = (f"{figures[key]:.2f}" for key in ("ping_p50", "ping_p99", "task_p50", "task_p99"))
    return (name, f"{figures['wall']:.3f}", f"{figures['peak']:.0f}", *times, f"{figures['samples']:.0f}", f"{figures['cpu_us']:.0f}")


def _targets(name: str, figures: dict[str, float]) -> Iterator[Target]:
    yield Target(f"{MAILS} mails of {DELAY_MS} ms, {name}", figures["wall"], WALL_SECONDS, "s")
    yield Target(f"pings meanwhile at p99, {name}", figures["ping_p99"], PING_MS, "ms")
    yield Target(f"a trivial task meanwhile at p99, {name}", figures["task_p99"], TRIVIAL_MS, "ms")


def _memory(command: str, sink: programs.Sink) -> tuple[int, int]:
    """With that many mails in flight, in bytes: on a fresh server, and on the same after many mails."""
    with programs.handoff(command, HANDOFF_SMTP_URL=sink.url) as server:
        fresh = _memory_with_mails(server, sink)
        loads.run(server, "flood", tasks=USED_MAILS, connections=CONNECTIONS)
        return fresh, _memory_with_mails(server, sink)


def _memory_with_mails(server: programs.Server, sink: programs.Sink) -> int:
    """The most of three readings while the sink holds that many mails, in bytes."""
    sink.ask("reset")
    sink.ask(f"delay {HELD_DELAY_MS}")
    with _flood_of_held(server):
        deadline = time.monotonic() + HELD_DELAY_MS / 1e3
        while sink.ask("counts")["waiting"] < HELD:
            if time.monotonic() > deadline:
                raise programs.Broken(f"{HELD} mails were never in flight at once: {sink.ask('counts')}")
            time.sleep(0.02)
        readings = [procs.pss(server.pid) for _ in range(3)]
        if sink.ask("counts")["waiting"] < HELD:
            raise programs.Broken("mails were done before memory was read")
    sink.ask(f"delay {DELAY_MS}")
    return max(readings)


@contextmanager
def _flood_of_held(server: programs.Server) -> Iterator[None]:
    process = subprocess.Popen(loads.command(server, "flood", tasks=HELD, connections=CONNECTIONS), stdout=subprocess.DEVNULL)
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        status = process.wait()
    if status:
        raise programs.Broken("the held mails were not all sent")
