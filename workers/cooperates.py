"""`python -m workers.cooperates MODULE:FUNCTION [ARGS]`: runs a function once, patched as in a worker, and says whether it co-operates,
and if not, what it is to be run in.

Three things are watched meanwhile: how long the hub did not turn, how long no other native thread could run (the GIL was held), and for how
long it wanted a CPU, whether it had one or not. ARGS is JSON, an array or an object, as in a task. What watches a worker all the time is
`workers/watchdog.py`.
"""

import sys
import time
import traceback
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import ujson
from gevent import monkey

from app.errors import HandoffError
from app.patching import patch
from workers.registry import Function, Registry

BEAT_EVERY = 0.01
HELD = 0.25
"""Seconds for which a task may hold the hub: after as many the watchdog names it."""

SCHEDULED = Path("/proc/thread-self/schedstat")
USAGE = "python -m workers.cooperates MODULE:FUNCTION [ARGS, in JSON]"


@dataclass(frozen=True, slots=True)
class Observed:
    """Of one run, in seconds: how long it took, the longest that the hub and that other threads stood still, and how long it computed, or
    would have."""

    took: float
    hub_held: float
    gil_held: float
    computed: float

    @property
    def advice(self) -> str:
        """What it is to be run in."""
        if self.hub_held < HELD:
            return "it co-operates"
        if self.computed > self.hub_held / 2 or self.gil_held > self.hub_held / 2:
            return "give it run_in=process"
        return "give it run_in=thread"


class Beat:
    """The longest time between two beats. `beat` is called as often as whoever makes it gets a turn."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._at = time.monotonic()

    def beat(self) -> None:
        """One more."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self._at - BEAT_EVERY)
        self._at = now


class Native:
    """Beats in a native thread, while it has not been told to stop."""

    def __init__(self) -> None:
        self._beat = Beat()
        self._goes_on = True
        self._sleep = monkey.get_original("time", "sleep")

    def start(self) -> None:
        """Begin."""
        monkey.get_original("_thread", "start_new_thread")(self._run, ())

    def stop(self) -> float:
        """The longest time between two beats."""
        self._goes_on = False
        self._beat.beat()
        return self._beat.longest

    def _run(self) -> None:
        while self._goes_on:
            self._sleep(BEAT_EVERY)
            self._beat.beat()


def wanted_cpu() -> float:
    """Seconds in which this thread has run, or waited for a CPU: a busy machine makes no difference."""
    if not SCHEDULED.exists():  # a kernel that does not count it
        return time.thread_time()
    ran, waited, _ = SCHEDULED.read_text().split()
    return (int(ran) + int(waited)) / 1e9


def observe(function: Function, args: tuple[Any, ...], named: dict[str, Any]) -> Observed:
    """Run it here, to its end; the hub turns where it lets it. Raises what it raises."""
    hub, native = Beat(), Native()
    timer = gevent.get_hub().loop.timer(BEAT_EVERY, BEAT_EVERY)
    timer.start(hub.beat)
    native.start()
    began, computed = time.monotonic(), wanted_cpu()
    try:
        result = function.call(*args, **named)
        if function.is_generator:
            deque(result, maxlen=0)
    finally:
        took, computed = time.monotonic() - began, wanted_cpu() - computed
        gevent.sleep(2 * BEAT_EVERY)  # a last turn of the hub, that counts what was held up to the end
        timer.close()
        gil_held = native.stop()
    return Observed(took, hub.longest, gil_held, computed)


def main(argv: list[str]) -> int:
    """The exit code: 0 where it co-operates, 1 where it does not, 2 where it could not be run."""
    patch()
    sys.path.insert(0, "")
    if not 1 <= len(argv) <= 2 or argv[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        function = Registry().add_dotted(argv[0])
        args, named = function.bind(ujson.loads(argv[1]) if argv[1:] else [])
    except (HandoffError, ValueError) as error:
        print(f"{argv[0]}: {error}", file=sys.stderr)
        return 2
    try:
        seen = observe(function, args, named)
    except Exception:  # noqa: BLE001 - the barrier: it may raise anything
        traceback.print_exc()
        return 2
    figures = f"held the hub for {seen.hub_held:.2f} s at most, and wanted a CPU for {seen.computed:.2f} s"
    print(f"{argv[0]} took {seen.took:.2f} s, {figures}: {seen.advice}")
    return int(seen.hub_held >= HELD)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
