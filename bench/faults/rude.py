"""The rows of the rude tasks: those that eat memory, hold the CPU, end or crash their process; and a worker that is stopped for a while."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.faults.accounts import Accounts
from bench.faults.disk import Skipped
from bench.faults.kills import AGAIN, ALL, FLAGS, ONCE
from bench.faults.stage import Plan, Stage, staged
from bench.report import percentile
from tests.harness import WsClient, wait_until

MIB = 1024 * 1024


def hungry(plan: Plan) -> Accounts:
    """A task that wants more memory than its process may have (RLIMIT_AS): `failed`, and nothing else happens."""
    with staged("memory-hungry", plan, ALL, *FLAGS) as stage:
        for number in stage.portions():
            stage.ask(f"hungry-{number}", "hungry", [1024 * MIB])
        accounts = stage.books()
    for task in _of(accounts, "hungry"):
        accounts.want(task.final["event"] == "failed" and "MemoryError" in task.final["error"]["message"], f"{task.id}: {task.final}")
    accounts.want(not accounts.interrupted and accounts.extra == 0, f"I = {len(accounts.interrupted)}, E = {accounts.extra}")
    return accounts


def _of(accounts: Accounts, function: str) -> list[Any]:
    return [task for task in accounts.tasks.values() if task.function == function]


@contextmanager
def memory_group(limit: int) -> Iterator[tuple[str, ...]]:
    """A control group of so many bytes, as the words before a command that put it there. Raises `Skipped` where none can be made."""
    name = f"handoff-faults-{os.getpid()}"
    for path, knob in ((Path("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup", name), "memory.max")):
        try:
            path.mkdir()
            (path / knob).write_text(str(limit))
            break
        except OSError:
            with contextlib.suppress(OSError):
                path.rmdir()
    else:
        raise Skipped("no control group for memory can be made here")
    try:
        yield ("sh", "-c", f'echo $$ > {path}/cgroup.procs && exec "$@"', "sh")
    finally:
        wait_until(lambda: not (path / "cgroup.procs").read_text(), 10, "the control group is not empty")
        path.rmdir()


def out_of_memory(plan: Plan) -> Accounts:
    """A worker that the kernel kills for want of memory: what it ran is interrupted, or tried again and then `failed`/`crashed`."""
    with memory_group(420 * MIB) as under, staged("out of memory", plan, AGAIN, *FLAGS, under=under) as stage:
        for number in stage.portions():
            again = number % 3 == 1
            stage.ask(f"devours-{number}", "devours_again" if again else "devours", [], 120)
            stage.kills += 3 if again else 1
        accounts = stage.books()
    for task in _of(accounts, "devours"):
        accounts.want(task.final["event"] == "interrupted", f"{task.id}: {task.final}")
    for task in _of(accounts, "devours_again"):
        accounts.want((task.final["event"], task.final["error"]["code"]) == ("failed", "crashed"), f"{task.id}: {task.final}")
        accounts.want(accounts.lines[task.id] == 3, f"{task.id}: {accounts.lines[task.id]} attempts")
    return accounts


def ends_its_process(plan: Plan) -> Accounts:
    """Tasks that call os._exit, or segfault, retryable: their attempts, then `failed`/`crashed`; and the others go on."""
    with staged("ends its process", plan, AGAIN, *FLAGS) as stage:
        for number in stage.portions():
            stage.ask(f"segfaults-{number}", "segfaults", [])
            if number == 0 or plan.long:
                stage.ask(f"exits-{number}", "exits", [])
                stage.kills += 3
        accounts = stage.books()
    for task in (*_of(accounts, "exits"), *_of(accounts, "segfaults")):
        accounts.want((task.final["event"], task.final["error"]["code"]) == ("failed", "crashed"), f"{task.id}: {task.final}")
        accounts.want(accounts.lines[task.id] == 3, f"{task.id}: {accounts.lines[task.id]} attempts")
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}")
    return accounts


def crashes_beside_others(plan: Plan) -> Accounts:
    """Segfaults, one after the other, in a process of their own: the others keep nine tenths of their throughput."""
    with staged("segfaults beside others", plan, ONCE, *FLAGS) as stage:
        quiet = _throughput(stage, 0.5)
        crashing = Neighbour(stage, "segfaults", [])
        shaken = _throughput(stage, 1.0)
        crashes = crashing.end()
        accounts = stage.books()
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}")
    accounts.want(shaken >= (0.9 if plan.long else 0.0) * quiet, f"{shaken:.0f} tasks/s of {quiet:.0f}")
    accounts.remarks.append(f"{quiet:.0f} tasks/s alone, {shaken:.0f} beside {crashes} tasks that crashed three times each")
    return accounts


def _throughput(stage: Stage, up_to: float) -> float:
    """Tasks a second until so large a share of them is over."""
    before, began = stage.driver.finished, time.monotonic()
    stage.driver.allow(up_to)
    wait_until(lambda: stage.driver.idle, 300, stage.state)
    return (stage.driver.finished - before) / (time.monotonic() - began)


class Neighbour(threading.Thread):
    """Submits one task after the other beside the load, each when the one before is over."""

    def __init__(self, stage: Stage, function: str, args: list[Any]) -> None:
        super().__init__(daemon=True)
        self._stage, self._function, self._args = stage, function, args
        self._end = threading.Event()
        self.count = 0
        self.start()

    def run(self) -> None:
        """Until `end`."""
        while not self._end.is_set():
            self._stage.ask(f"neighbour-{self.count}", self._function, self._args)
            self.count += 1

    def end(self) -> int:
        """After the one that is under way; how many there were."""
        self._end.set()
        self.join()
        return self.count


HANG_LIMIT = 1.0


def spins(plan: Plan) -> Accounts:
    """A task that holds the CPU in a greenlet: named within a second with its line, and ended with its process at the limit."""
    flags = () if plan.long else ("--hang-limit", str(HANG_LIMIT))
    with staged("holds the CPU", plan, AGAIN, *FLAGS, *flags) as stage:
        seconds = 120.0 if plan.long else 10 * HANG_LIMIT
        for number in stage.portions():
            if number == 0 or not plan.long:
                began = time.monotonic()
                stage.driver.add({"id": f"spins-{number}", "function": "holds_the_cpu", "args": [seconds]})
                known = number + 1
                wait_until(lambda known=known: stage.house.log().count("hub-blocked: holds_the_cpu") >= known, 10, stage.state)  # type: ignore[misc]
                named = time.monotonic() - began
                task = stage.driver.tasks[f"spins-{number}"]
                wait_until(lambda task=task: task.final, 60, stage.state)  # type: ignore[misc]
                stage.kills += 1
        accounts = stage.books()
    accounts.remarks.append(f"named {named:.2f} s after it was sent")
    for task in _of(accounts, "holds_the_cpu"):
        accounts.want(task.final["event"] == "interrupted", f"{task.id}: {task.final}")
        accounts.want("in spin" in task.final["error"].get("stack", ""), f"{task.id}: no stack in {task.final}")
    accounts.want(len(accounts.interrupted) == len(_of(accounts, "holds_the_cpu")), f"I = {len(accounts.interrupted)}")
    return accounts


def spins_apart(plan: Plan) -> Accounts:
    """The same, declared `run_in="process"`: the p99 of the others is less than doubled."""
    with staged("holds the CPU apart", plan, ONCE, *FLAGS, lines=1, window=5) as stage:
        quiet = latency(stage, 10.0 if plan.long else 1.0)
        stage.driver.add({"id": "holds_the_cpu", "function": "holds_the_cpu_apart", "args": [15.0 if plan.long else 1.5]})
        wait_until(lambda: stage.driver.tasks["holds_the_cpu"].seq > 1, 20, stage.state)
        loaded = latency(stage, 10.0 if plan.long else 1.0)
        accounts = stage.books()
    accounts.want(loaded < (2 * quiet if plan.long else 2.0), f"p99 {loaded * 1000:.1f} ms of {quiet * 1000:.1f} ms")
    accounts.want(not accounts.interrupted and accounts.extra == 0, f"I = {len(accounts.interrupted)}, E = {accounts.extra}")
    accounts.remarks.append(f"p99 of an echo {quiet * 1000:.1f} ms alone, {loaded * 1000:.1f} ms beside it")
    return accounts


def latency(stage: Stage, seconds: float) -> float:
    """p99 of an `echo` every 10 ms, in seconds."""
    samples = []
    until = time.monotonic() + seconds
    with WsClient(stage.house.ws_url) as client:
        while time.monotonic() < until:
            began = time.monotonic()
            client.ask({"id": f"echo-{began:.6f}".replace(".", "-"), "function": "echo", "args": [1], "events": "final"})
            samples.append(time.monotonic() - began)
            time.sleep(0.01)
    return percentile(samples, 0.99)


LEASE = 15.0


def stopped(plan: Plan) -> Accounts:
    """SIGSTOP of a worker that runs alone, beyond its lease, then SIGCONT: what it says then is refused and logged."""
    lease = LEASE if plan.long else 1.5
    with staged("stopped worker", plan, ONCE | AGAIN, *FLAGS[2:], lease=lease, command="gateway", workers=2) as stage:
        for number in stage.portions():
            worker = stage.workers[number % 2]
            stage.more()
            wait_until(lambda: stage.driver.busy, 10, stage.state)
            os.kill(worker.pid, signal.SIGSTOP)
            stage.killed.append(worker.pid)  # for who asks whose fault it is that something ran again
            known = stage.house.log().count("has not answered for")
            wait_until(lambda known=known: stage.house.log().count("has not answered for") > known, 4 * lease, stage.state)  # type: ignore[misc]
            met = stage.house.log().count("link-up")
            os.kill(worker.pid, signal.SIGCONT)
            wait_until(lambda met=met: stage.house.log().count("link-up") > met, 10, stage.state)  # type: ignore[misc]
            stage.kills += 1
        accounts = stage.books()
        accounts.blame(stage.killed)
        refused = sum(worker.log().count("report-refused") for worker in stage.workers) + stage.house.log().count("report-refused")
    accounts.want(refused > 0, "no late report was refused")
    accounts.remarks.append(f"{refused} late reports were refused and logged")
    return accounts
