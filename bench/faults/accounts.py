"""What one row comes to: who was promised what, what each was told, what took effect; and which of the promises that breaks.

A accepted · F with a final report · L = A − F lost · X not retryable, with more than one line of effect
I interrupted · E extra runs of retryable ones · U submits that were never answered, and sent again
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

FINAL = frozenset(("succeeded", "failed", "timed_out", "cancelled", "interrupted"))
RETRYABLE = {"again": 1, "asks": 2, "lingers": 1, "dies_after_once": 1, "exits": 1, "segfaults": 1, "devours_again": 1}
"""Functions that may run more than once, and how often they run where nothing happens to them."""


class Run(NamedTuple):
    """A line of effect."""

    id: str
    attempt: int
    pid: int


def runs_of(path: Path) -> list[Run]:
    """Every line of effect so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Run(name, int(attempt), int(pid)) for name, attempt, pid in (line.split(" ") for line in lines)]


@dataclass(slots=True)
class Told:
    """A task as its client knows it. `waits`: a submit of it is under way and not answered; `spared`: it is not cancelled."""

    message: dict[str, Any]
    accepted: bool = False
    waits: bool = False
    sent: int = 0
    seq: int = 0
    events: list[tuple[int, str]] = field(default_factory=list)
    final: Any = None
    refused: str = ""
    spared: bool = False

    @property
    def id(self) -> str:
        """As the driver chose it."""
        return str(self.message["id"])

    @property
    def function(self) -> str:
        """What it asks for."""
        return str(self.message["function"])

    @property
    def retryable(self) -> bool:
        """Whether it may run more than once."""
        return self.function in RETRYABLE


@dataclass(slots=True)
class Accounts:
    """The books of one row. `broken` holds what went against a promise; `remarks` what was measured besides."""

    row: str
    tasks: dict[str, Told]
    unanswered: int
    kills: int
    seconds: float
    runs: list[Run]
    broken: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """A."""
        return sum(task.accepted for task in self.tasks.values())

    @property
    def finished(self) -> int:
        """F."""
        return sum(task.accepted and task.final is not None for task in self.tasks.values())

    @property
    def lost(self) -> int:
        """L."""
        return self.accepted - self.finished

    @property
    def lines(self) -> Counter[str]:
        """How often each task took effect."""
        return Counter(run.id for run in self.runs)

    @property
    def twice(self) -> list[str]:
        """X."""
        return [name for name, count in self.lines.items() if count > 1 and not self.tasks[name].retryable]

    @property
    def interrupted(self) -> list[str]:
        """I."""
        return [task.id for task in self.tasks.values() if task.final is not None and task.final["event"] == "interrupted"]

    @property
    def extra(self) -> int:
        """E."""
        lines = self.lines
        return sum(max(0, lines[task.id] - RETRYABLE[task.function]) for task in self.tasks.values() if task.retryable)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why tasks were interrupted, and how many of them."""
        finals = [task.final for task in self.tasks.values() if task.final is not None]
        return Counter(final["error"]["message"] for final in finals if final["event"] == "interrupted").most_common(3)

    def want(self, holds: bool, words: str) -> None:
        """Another promise of this row."""
        if not holds:
            self.broken.append(words)

    def judge(self) -> None:
        """What every row wants."""
        self.want(
            self.lost == 0, f"L = {self.lost}: {[task.id for task in self.tasks.values() if task.accepted and task.final is None][:3]}"
        )
        self.want(not self.twice, f"X = {len(self.twice)}: {self.twice[:3]}")
        self.want(self.accepted == len(self.tasks), f"{len(self.tasks) - self.accepted} tasks were never accepted")
        unknown = self.lines.keys() - self.tasks.keys()
        self.want(not unknown, f"effects of tasks that nobody submitted: {sorted(unknown)[:3]}")
        silent = [task.id for task in self.tasks.values() if task.final and task.final["event"] == "succeeded" and not self.lines[task.id]]
        self.want(not silent, f"succeeded without an effect: {silent[:3]}")
        for task in self.tasks.values():
            self._judge_story(task)

    def _judge_story(self, task: Told) -> None:
        finals = [event for _, event in task.events if event in FINAL]
        numbers = [seq for seq, _ in task.events]
        self.want(len(finals) <= 1 and not (finals and task.events[-1][1] != finals[0]), f"{task.id}: final reports {finals}")
        if task.message.get("events") != "final":
            self.want(numbers == list(range(1, len(numbers) + 1)), f"{task.id}: events {task.events}")

    def blame(self, killed: Iterable[int]) -> None:
        """Who was interrupted, or ran once more, did so because a process that was killed had it."""
        dead, by_task = frozenset(killed), defaultdict[str, list[Run]](list)
        for run in self.runs:
            by_task[run.id].append(run)
        for name in self.interrupted:
            self.want(all(run.pid in dead for run in by_task[name]), f"{name}: interrupted, and its process lives")
        for task in self.tasks.values():
            runs = by_task[task.id]
            if task.function == "again":
                self.want(all(run.pid in dead for run in runs[:-1]), f"{task.id}: ran again, and its process lives: {runs}")

    def cells(self) -> list[str]:
        """Its line in the table."""
        figures = (self.accepted, self.finished, self.lost, len(self.twice), len(self.interrupted), self.extra, self.unanswered, self.kills)
        verdict = "kept" if not self.broken else "BROKEN"
        return [self.row, *map(str, figures), f"{self.seconds:.1f}", verdict]


HEADINGS = ["row", "A", "F", "L", "X", "I", "E", "U", "kills", "seconds", "verdict"]
