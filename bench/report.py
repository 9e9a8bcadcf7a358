"""Tables and verdicts. What a figure is judged by stands with the section that measures it; here it is only compared and printed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """One measured figure and the most that it may be."""

    what: str
    measured: float
    most: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the figure is within its target, as it was measured and not as it is rounded."""
        return self.measured <= self.most

    def __str__(self) -> str:
        verdict = "met    " if self.met else "NOT MET"
        return f"{verdict}  {self.what}: {self.measured:.4g} {self.unit} (at most {self.most:g})"


@dataclass(frozen=True, slots=True)
class Section:
    """What one section measured: a title, the rows of its table (the first names the columns), remarks, targets, and all raw results."""

    title: str
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target]
    remarks: Sequence[str] = ()
    raw: Sequence[dict[str, Any]] = ()

    def __str__(self) -> str:
        parts = [self.title, "", *columns(self.rows), ""]
        if self.remarks:
            parts += [*self.remarks, ""]
        return "\n".join([*parts, *(str(target) for target in self.targets), ""])

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        targets = [asdict(target) | {"met": target.met} for target in self.targets]
        return {"title": self.title, "targets": targets, "remarks": list(self.remarks), "raw": list(self.raw)}


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, the cells of a column as wide as its widest."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(_aligned(row, widths)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The first cell to the left, as words are; the others to the right, as figures are."""
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below or at which `share` of them lie: the nearest rank, so with few samples a high share is the largest."""
    ordered = sorted(samples)
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[rank - 1]
