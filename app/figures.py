"""How much a gateway does, in figures: what was accepted and ended, and how long tasks waited and ran. Fixed memory, however much it is.

On the hot path there is one addition for each thing that happened. Once a second, the difference to the second before becomes a sample;
the last `SAMPLES` of them are kept. What is counted when is decided in `app/ledger.py`; who sees it, in `app/gateway/watch.py`.
"""

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

SAMPLES = 120
"""Seconds that are kept."""

WINDOW = 5
"""Seconds over which rates and times are taken, so that they do not flicker."""

RATE_WINDOW = 20
"""Seconds over which it is seen how fast the queue moves."""

_STEPS = 8
_MOST_BITS = 36
_BUCKETS = (_MOST_BITS - 4) * _STEPS + 2 * _STEPS


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
    """How often something took how long: in buckets an eighth of an octave wide, from 1 µs to 19 hours."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS

    def add(self, seconds: float) -> None:
        """It took so long; what a clock that was set back makes negative counts as nothing."""
        self.counts[_bucket(seconds)] += 1


class Figures:
    """Of one gateway process. `accepted` and `finished` count since its start."""

    def __init__(self) -> None:
        self.accepted = 0
        self.finished = 0
        self.waits = Durations()
        self.runs = Durations()
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._before: deque[tuple[float, int, int, list[int], list[int]]] = deque(maxlen=RATE_WINDOW + 1)
        self._before.append(self._now())

    def waited(self, since: float) -> float:
        """A task that waited since then has its turn: now, in seconds since 1970."""
        now = time.time()
        self.waits.add(now - since)
        return now

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
