"""How much a gateway does, in figures: what was accepted and ended, and how long tasks waited and ran. Fixed memory, however much it is.

On the hot path there is one addition for each thing that happened. Once a second, the difference to the second before becomes a sample;
the last `SAMPLES` of them are kept. What is counted when is decided in `app/ledger.py`, and for tasks that came straight to a worker in
`workers/sinks.py`; who sees it, in `app/gateway/watch.py` and `app/gateway/metrics.py`.
"""

import time
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

SAMPLES = 120
"""Seconds that are kept."""

WINDOW = 5
"""Seconds over which rates and times are taken, so that they do not flicker."""

RATE_WINDOW = 20
"""Seconds over which it is seen how fast the queue moves."""

MOST_FUNCTIONS = 80
"""Functions of one process that are counted each by its name."""

OTHERS = "(others)"
"""All further ones together."""

_STEPS = 8
_MOST_BITS = 36
_BUCKETS = (_MOST_BITS - 4) * _STEPS + 2 * _STEPS
_OCTAVES = range(10, 33)

BOUNDS = tuple(2**octave / 1e6 for octave in _OCTAVES)
"""Seconds: what `Durations.tree` counts lies below each of these, from a millisecond to more than an hour."""


class Sample(NamedTuple):
    """One second. Rates are per second, times in seconds; a time is None where nothing was measured in the window."""

    at: float
    accepted: float
    finished: float
    queued: int
    unfinished: int
    wait_p50: float | None
    wait_p99: float | None
    run_p50: float | None
    run_p99: float | None


class Durations:
    """How often something took how long: in buckets an eighth of an octave wide, from 1 µs to 19 hours; `total`: seconds, all together."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """It took so long; what a clock that was set back makes negative counts as nothing."""
        self.counts[_bucket(seconds)] += 1
        if seconds > 0:
            self.total += seconds

    def tree(self) -> dict[str, Any]:
        """For the scoreboard: how many lie below each of the `BOUNDS`, and how many there are; and the total, in microseconds: sums of
        whole numbers do not depend on their order."""
        counts = self.counts
        ends = [(octave - 2) * _STEPS for octave in _OCTAVES]
        parts = (sum(counts[start:end]) for start, end in zip([0, *ends], [*ends, None], strict=True))
        return {"below": list(accumulate(parts)), "micros": int(self.total * 1e6)}


class Ends:
    """How tasks ended, by function and final event, and how long they ran."""

    __slots__ = ("by_function", "runs")

    def __init__(self) -> None:
        self.by_function: dict[str, dict[str, int]] = {}
        self.runs = Durations()

    def add(self, function: str, event: str, ran: float | None) -> None:
        """A task is over; `ran`: for how long, in seconds, where it ran at all."""
        ends = self.by_function.get(function)
        if ends is None:
            ends = self._first_of(function)
        ends[event] = ends.get(event, 0) + 1
        if ran is not None:
            self.runs.add(ran)

    def tree(self) -> dict[str, Any]:
        """For the scoreboard."""
        return {"ended": {function: dict(ends) for function, ends in self.by_function.items()}, "runs": self.runs.tree()}

    def _first_of(self, function: str) -> dict[str, int]:
        return self.by_function.setdefault(function if len(self.by_function) < MOST_FUNCTIONS else OTHERS, {})


class Figures:
    """Of one gateway process. `accepted`, `finished` and `retried` count since its start."""

    def __init__(self) -> None:
        self.accepted = 0
        self.finished = 0
        self.retried = 0
        self.waits = Durations()
        self.ends = Ends()
        self.runs = self.ends.runs
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._before: deque[tuple[float, int, int, list[int], list[int]]] = deque(maxlen=RATE_WINDOW + 1)
        self._before.append(self._now())

    def waited(self, since: float) -> float:
        """A task that waited since then has its turn: now, in seconds since 1970."""
        now = time.time()
        self.waits.add(now - since)
        return now

    def ended(self, function: str, event: str, since: float | None) -> float:
        """A task is over, which ran since then, where it ran at all: now, in seconds since 1970."""
        now = time.time()
        self.finished += 1
        self.ends.add(function, event, None if since is None else now - since)
        return now

    def tree(self) -> dict[str, Any]:
        """For the scoreboard: all that is counted."""
        return {"accepted": self.accepted, "retried": self.retried, "waits": self.waits.tree(), **self.ends.tree()}

    def sample(self, queued: int, unfinished: int) -> None:
        """Take one; to be called once a second."""
        now = self._now()
        at, accepted, finished, waits, runs = self._before[-min(WINDOW, len(self._before))]
        seconds = max(now[0] - at, 1e-3)
        wait, run = _difference(now[3], waits), _difference(now[4], runs)
        rates = ((now[1] - accepted) / seconds, (now[2] - finished) / seconds)
        times = (percentile(wait, 0.5), percentile(wait, 0.99), percentile(run, 0.5), percentile(run, 0.99))
        self.samples.append(Sample(time.time(), *rates, queued, unfinished, *times))
        self._before.append(now)

    def wait_at(self, position: int) -> float | None:
        """The seconds until a task at this position in the queue will have its turn, if things go on as in the last `RATE_WINDOW`
        seconds; None where nothing has ended in these."""
        at, _, finished, _, _ = self._before[0]
        ended = self.finished - finished
        return (position + 1) * (time.monotonic() - at) / ended if ended else None

    def _now(self) -> tuple[float, int, int, list[int], list[int]]:
        return time.monotonic(), self.accepted, self.finished, self.waits.counts[:], self.runs.counts[:]


def percentile(counts: Sequence[int], part: float) -> float | None:
    """The seconds below which this part of what was counted lies, to a sixteenth; None where there is nothing."""
    left = sum(counts) * part
    if not left:
        return None
    for number, count in enumerate(counts):
        left -= count
        if count and left <= 0:
            return (_lowest(number) + _lowest(number + 1)) / 2e6 if number else 0.0
    raise AssertionError("the parts are less than the whole")


def _difference(counts: Sequence[int], before: Sequence[int]) -> list[int]:
    return [now - then for now, then in zip(counts, before, strict=True)]


def _bucket(seconds: float) -> int:
    micros = int(seconds * 1e6)
    if micros < 2 * _STEPS:
        return micros if micros > 0 else 0
    bits = micros.bit_length()
    return (bits - 4) * _STEPS + (micros >> (bits - 4)) if bits <= _MOST_BITS else _BUCKETS - 1


def _lowest(bucket: int) -> int:
    """The fewest microseconds that are counted there."""
    if bucket < 2 * _STEPS:
        return bucket
    return (bucket % _STEPS + _STEPS) << (bucket // _STEPS - 1)
