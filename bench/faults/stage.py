"""What a row plays on: a server, a driver, and the kills; and how a row ends, the same way for all.

with Stage(...) as stage:  release a share of the tasks ─▶ do something bad ─▶ … ─▶ books()
"""

import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.faults.accounts import Accounts, runs_of
from bench.faults.driver import Driver, witness
from bench.faults.house import House, Service
from tests.harness import wait_until

FAILURES = ("report-failed", "commit-failed", "message-failed", "turn-failed", "connection-failed", "line-failed")
"""What must not be in a log: barriers that something unforeseen has come to."""

PATIENCE = 120.0
"""Seconds in which a row must have all its reports after the last that happened to it."""

STEADY = 2.1
"""Seconds after which the master replaces a process at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a row is. `long`: at random moments and with the real times; else at named points, for a suite of tests."""

    tasks: int
    kills: int
    seed: int
    long: bool


Build = Callable[[Path, Path], House | Service]
"""Starts a server, given its data directory and the file of effects."""

Mix = dict[str, list[Any] | Callable[[random.Random], list[Any]]]
"""Functions with their arguments; each is as likely as the others."""


def brief(chance: random.Random) -> list[Any]:
    """A task of 0 to 40 ms."""
    return [round(chance.random() * 0.04, 3)]


def messages(row: str, plan: Plan, mix: Mix, plain: bool = False) -> list[dict[str, Any]]:
    """So many submits; where they are not `plain`, of every kind there is: delayed, prioritised, the end alone."""
    chance = random.Random(plan.seed)
    name = re.sub("[^a-z]+", "-", row)
    made = []
    for number in range(plan.tasks):
        function = chance.choice(list(mix))
        args = mix[function]
        message: dict[str, Any] = {"id": f"{name}-{number}", "function": function, "args": args(chance) if callable(args) else args}
        if not plain:
            message |= {"priority": chance.randint(-3, 3), "events": chance.choice(["all", "all", "all", "final"])}
            message |= {"delay": round(chance.random() * 0.3, 3)} if chance.random() < 0.1 else {}
        made.append(message)
    return made


@dataclass(slots=True)
class Stage:
    """One row under way. `killed` are the processes that were."""

    row: str
    plan: Plan
    build: Build
    house: House | Service
    chance: random.Random
    workers: list[House]
    driver: Driver = field(init=False)
    began: float = field(default_factory=time.monotonic)
    killed: list[int] = field(default_factory=list)
    kills: int = 0
    remarks: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    _released: int = 0

    def kill(self, pid: int) -> None:
        """With SIGKILL."""
        self.killed.append(pid)
        self.kills += 1
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def portions(self) -> Iterator[int]:
        """Release the tasks portion by portion, one a kill, and a last one that goes on to the end; stop amid each, at a random moment in
        the long form. Half of a portion is kept for `more`."""
        for number in range(self.plan.kills):
            before, half = self.driver.finished, self.plan.tasks / (2 * self.plan.kills + 1)
            self._released = 2 * number + 1
            self.driver.allow(self._released / (2 * self.plan.kills + 1))
            enough = before + (self.chance.random() if self.plan.long else 0.3) * half
            wait_until(lambda enough=enough: self.driver.finished >= enough, PATIENCE, self.state)  # type: ignore[misc]
            yield number
            self.more()
        self.driver.allow(1)

    def portion(self, up_to: float) -> None:
        """Release so large a share of the tasks, and wait until some of it is over."""
        before = self.driver.finished
        self.driver.allow(up_to)
        wait_until(lambda: self.driver.finished > before or self.driver.idle, PATIENCE, self.state)

    def more(self) -> None:
        """Release the second half of this portion."""
        self.driver.allow((self._released + 1) / (2 * self.plan.kills + 1))

    def ask(self, name: str, function: str, args: list[Any], timeout: float = 60.0) -> Any:
        """One task beside the load; blocks until its final report, which is returned."""
        self.driver.add({"id": name, "function": function, "args": args})
        return wait_until(lambda: self.driver.tasks[name].final, timeout, self.state)

    def state(self) -> str:
        """For a message; raises what the driver failed with."""
        self.driver.check()
        return f"{self.row}: {self.driver.finished} of {len(self.driver.tasks)} finished\n{self.house.log()[-4000:]}"

    def want(self, holds: bool, words: str) -> None:
        """A promise of this row."""
        if not holds:
            self.broken.append(words)

    def restart(self) -> None:
        """Start anew on the same data directory; the driver finds it."""
        self.logs.append(self.house.log())
        self.house.end()
        self.house = self.build(self.house.data_dir, self.house.effects)

    def books(self, patience: float = PATIENCE) -> Accounts:
        """Wait for every report, have a witness told the same, and close the books."""
        in_time = self.driver.wait(patience)
        seconds = time.monotonic() - self.began
        tasks = self.driver.tasks
        accounts = Accounts(self.row, tasks, self.driver.unanswered, self.kills, seconds, runs_of(self.house.effects))
        accounts.broken, accounts.remarks = self.broken, self.remarks
        accounts.want(in_time, f"not every report came within {patience:g} s")
        accounts.judge()
        if in_time:
            accounts.broken += witness(self.house.ws_url, tasks)
        self.logs.append(self.house.log())
        found = [line for log in self.logs for line in log.splitlines() if any(word in line for word in FAILURES)]
        accounts.want(not found, f"in the log: {found[:2]}")
        return accounts


@contextmanager
def staged(
    row: str,
    plan: Plan,
    mix: Mix,
    *flags: str,
    data_dir: Path | None = None,
    plain: bool = False,
    lines: int = 4,
    window: int = 50,
    workers: int = 0,
    build: Build | None = None,
    **options: Any,
) -> Iterator[Stage]:
    """A house and a driver that has connected; the house is ended, and its orphans looked for, afterwards. `workers`: so many that run
    alone, each of them a house as well."""
    with tempfile.TemporaryDirectory(prefix="handoff-faults-") as room, ExitStack() as stack:
        place = data_dir or Path(room) / "data", Path(room) / "effects"
        alone = [House(*place, *flags, command="worker") for _ in range(workers)]
        for worker in alone:
            stack.callback(worker.end)
        build = build or (lambda *place: House(*place, *flags, **options))
        stage = Stage(row, plan, build, build(*place), random.Random(plan.seed), alone)
        stack.callback(lambda: stage.house.end())
        stage.driver = Driver(lambda: stage.house.ws_url, messages(row, plan, mix, plain), plan.seed, lines, window)
        stack.callback(stage.driver.stop)
        try:
            yield stage
        except BaseException:
            print(stage.house.log(), file=sys.stderr)
            raise
