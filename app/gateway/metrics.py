"""The scoreboard as metrics for Prometheus. What each is called and means stands in one table; `docs/metrics.md` has the same.

Labels have few values: functions come from the catalogue, and past `figures.MOST_FUNCTIONS` they are counted together; processes have the
names that they keep when they are replaced.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.figures import BOUNDS
from app.heartbeat import memory_of, silence_of
from app.scoreboard import Reading, Tree


class Kind(NamedTuple):
    """One row of the table."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


METRICS: Final = (
    Kind("handoff_tasks_accepted", "counter", (), "Tasks that gateways have accepted."),
    Kind(
        "handoff_tasks_finished",
        "counter",
        ("function", "outcome"),
        "Tasks that are over, by function and final event: those of a gateway, and those that came straight to a worker.",
    ),
    Kind("handoff_tasks_retried", "counter", (), "Attempts that did not succeed and are followed by another."),
    Kind("handoff_tasks_running", "gauge", (), "Tasks that gateways have at a worker now."),
    Kind(
        "handoff_tasks_unfinished",
        "gauge",
        (),
        "Accepted tasks that are not over: those that wait, for a place or for their time, and those that run.",
    ),
    Kind("handoff_queue_tasks", "gauge", (), "Tasks that wait for a place."),
    Kind(
        "handoff_queue_oldest_seconds",
        "gauge",
        (),
        "How long the first of them, in the order in which they were accepted, has waited; 0 where none waits.",
    ),
    Kind("handoff_task_wait_seconds", "histogram", (), "How long tasks of gateways waited for a place."),
    Kind("handoff_task_run_seconds", "histogram", (), "How long tasks ran that are over: their last attempt."),
    Kind("handoff_workers_connected", "gauge", (), "Worker processes that a gateway can send tasks to."),
    Kind("handoff_worker_reconnects", "counter", (), "Times that a lost connection to a worker that still lived was made again."),
    Kind("handoff_respawns", "counter", ("role",), "Processes that the master has started in the place of others."),
    Kind("handoff_journal_commits", "counter", (), "Turns of the event loop that something was kept of."),
    Kind(
        "handoff_journal_transactions",
        "counter",
        (),
        "Transactions in which they were written, each with one fsync where durability is full.",
    ),
    Kind("handoff_journal_bytes", "gauge", (), "Size of the journal's files."),
    Kind("handoff_hub_blocked", "counter", (), "Times that an event loop did not turn for a quarter of a second or longer."),
    Kind("handoff_process_up", "gauge", ("process",), "Processes of this name that live."),
    Kind("handoff_process_start_time_seconds", "gauge", ("process",), "When it began, in seconds since 1970."),
    Kind("handoff_process_memory_bytes", "gauge", ("process",), "What it has in memory (RSS)."),
    Kind("handoff_process_connections", "gauge", ("process",), "Connections that it serves."),
    Kind(
        "handoff_process_tasks_running",
        "gauge",
        ("process",),
        "Tasks that are at it, where it is a worker: those of gateways and direct ones.",
    ),
    Kind(
        "handoff_process_hub_lag_seconds",
        "gauge",
        ("process",),
        "The longest in the last 10 seconds that its event loop was late by; while it does not turn, for how long.",
    ),
)

_FAMILIES: Final[dict[str, Any]] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
_COUNTED: Final = {
    "handoff_tasks_accepted": "accepted",
    "handoff_tasks_retried": "retried",
    "handoff_worker_reconnects": "reconnects",
    "handoff_journal_commits": "commits",
    "handoff_journal_transactions": "transactions",
    "handoff_hub_blocked": "blocked",
}
_GAUGED: Final = {
    "handoff_tasks_running": "running",
    "handoff_tasks_unfinished": "unfinished",
    "handoff_queue_tasks": "queued",
    "handoff_workers_connected": "workers",
}
_NOTHING: Final = [0] * (len(BOUNDS) + 1)


class _Scrape(Collector):
    """What was read of the scoreboard, once."""

    def __init__(self, reading: Reading, data_dir: Path) -> None:
        self._counts = reading.counts
        self._gateways = [said for said in reading.alive if said["role"] == "gateway"]
        self._processes: dict[str, list[Tree]] = {}
        for said in reading.alive:
            self._processes.setdefault(said["name"], []).append(said)  # one that leaves has the name of the one that follows it
        self._data_dir = data_dir

    def collect(self) -> Iterator[Metric]:
        """All families, in the order of the table."""
        for kind in METRICS:
            if kind.type == "histogram":
                yield self._histogram(kind)
                continue
            family = _FAMILIES[kind.type](kind.name, kind.help, labels=kind.labels)
            for labels, value in self._samples(kind):
                family.add_metric(labels, value)
            yield family

    def _samples(self, kind: Kind) -> Iterator[tuple[tuple[str, ...], float]]:
        if kind.labels == ("process",):
            for name, those in self._processes.items():
                yield (name,), _of_process(kind.name, those)
        elif kind.name == "handoff_tasks_finished":
            for function, ends in self._counts.get("ended", {}).items():
                yield from (((function, outcome), count) for outcome, count in ends.items())
        elif kind.name == "handoff_respawns":
            yield from (((role,), count) for role, count in self._counts.get("respawns", {}).items())
        else:
            yield (), self._value(kind.name)

    def _value(self, name: str) -> float:
        if name in _COUNTED:
            return float(self._counts.get(_COUNTED[name], 0))
        if name in _GAUGED:
            return float(sum(said["gauges"].get(_GAUGED[name], 0) for said in self._gateways))
        if name == "handoff_journal_bytes":
            return float(journal_size(self._data_dir))
        return oldest(self._gateways)

    def _histogram(self, kind: Kind) -> HistogramMetricFamily:
        times = self._counts.get("waits" if kind.name == "handoff_task_wait_seconds" else "runs", {})
        below = times.get("below", _NOTHING)
        bounds = [*map(str, BOUNDS), "+Inf"]
        total = times.get("micros", 0) / 1e6
        return HistogramMetricFamily(kind.name, kind.help, buckets=list(zip(bounds, below, strict=True)), sum_value=total)


def expose(reading: Reading, data_dir: Path, accept: str) -> tuple[bytes, str]:
    """The text of a scrape, in the format that `accept` (a header) asks for, and its media type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(reading, data_dir))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def oldest(gateways: list[Tree]) -> float:
    """The seconds for which a task has waited for a place at most; 0 where none waits."""
    return max((time.time() - said["gauges"]["waits_since"] for said in gateways if "waits_since" in said["gauges"]), default=0.0)


def journal_size(data_dir: Path) -> int:
    """The bytes of the journal's files; 0 where there are none."""
    return sum(path.stat().st_size for path in data_dir.glob("journal.db*"))


def _of_process(name: str, those: list[Tree]) -> float:
    """Of all processes of one name together."""
    if name == "handoff_process_up":
        return len(those)
    if name == "handoff_process_start_time_seconds":
        return float(max(said["started_at"] for said in those))
    if name == "handoff_process_hub_lag_seconds":
        return max(map(lag_of, those))
    if name == "handoff_process_memory_bytes":
        return float(sum(map(memory_of, those)))
    if name == "handoff_process_connections":
        return float(sum(said["connections"] for said in those))
    return float(sum(said["busy"] for said in those if said["role"] == "worker"))


def lag_of(said: Tree) -> float:
    """Seconds by which its event loop is late; of the master, which has none, 0."""
    return float(max(said["lag"], silence_of(said)))
