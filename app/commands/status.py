"""`run.py status`: what runs with this data directory, and what each process is doing; read from the scoreboard, so nobody is asked and
nobody has to answer."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import click

from app.commands import exits, flags
from app.commands.output import print_json, print_table
from app.commands.tasks import age
from app.errors import Unavailable
from app.heartbeat import BEAT_EVERY, is_stopped, memory_of, silence_of
from app.scoreboard import Board, Reading, Tree

COLUMNS = ("pid", "memory", "process", "listening", "connections", "tasks", "tasks/s", "state", "running")
MOST_RUNNING = 3
"""Tasks of a process that are named in the table; with --json, all that the process names."""

SILENT_AFTER = 4 * BEAT_EVERY
"""Seconds for which a beat is overdue, after which a process is said to be blocked."""

_ORDER = ("master", "gateway", "worker")

EPILOG = f"""\
\b
Examples:
  run.py status
  run.py status --data-dir /srv/handoff --json | jq .processes
  watch -n1 run.py status

A process is `busy` where it has a task, `idle` where it has none, `blocked` where its event loop does not turn, and `stopped` where a
signal has stopped it: what it shows then is what it said last. `tasks` are those that it has begun, or as a gateway accepted; `running`
names those that have run longest, with their age, and of a gateway says how many wait.

\b
Exit status: 0 something runs, {exits.UNAVAILABLE} nothing does."""


@flags.server_options("data_dir")
@click.command(epilog=EPILOG, short_help="what runs, and what each process is doing")
@flags.json_option
def status(as_json: bool, **where: str | None) -> int:
    """Show the processes of a server, whatever state it is in."""
    reading = read_board(flags.chosen(where).run_dir)
    head, processes = _head(reading), list(map(_process, reading.alive))
    if as_json:
        print_json({**head, "processes": processes})
        return 0
    for name, value in _summary(head):
        print(f"{name:<9} {value}")
    print_table(COLUMNS, list(map(_row, processes)))
    return 0


def read_board(run_dir: Path) -> Reading:
    """The processes that live, the master first, and what all have counted. Raises `Unavailable` where nothing runs."""
    try:
        board = Board(run_dir)
    except FileNotFoundError:
        raise Unavailable(f"nothing runs with --data-dir {run_dir.parent}") from None
    except OSError as error:
        raise Unavailable(f"cannot read {run_dir}: {error.strerror}") from None
    reading = board.read()
    board.close()
    if not reading.alive:
        raise Unavailable(f"nothing runs with --data-dir {run_dir.parent}")
    return Reading(sorted(reading.alive, key=_place), reading.counts)


def _place(said: Tree) -> tuple[int, str, int]:
    return _ORDER.index(said["role"]), said["name"], said["pid"]


def _head(reading: Reading) -> dict[str, Any]:
    counts = reading.counts
    finished: dict[str, int] = {}
    for ends in counts.get("ended", {}).values():
        for outcome, count in ends.items():
            finished[outcome] = finished.get(outcome, 0) + count
    since = min(said["started_at"] for said in reading.alive)
    return {
        "version": ", ".join(sorted({said["version"] for said in reading.alive})),  # two of them while newer code takes over
        "python": platform.python_version(),
        "started_at": round(since, 3),
        "uptime": round(time.time() - since, 1),
        "load": [round(load, 2) for load in os.getloadavg()],
        "accepted": counts.get("accepted", 0),
        "finished": finished,
        "retried": counts.get("retried", 0),
        "respawns": sum(counts.get("respawns", {}).values()),
    }


def _process(said: Tree) -> dict[str, Any]:
    now = time.time()
    silence = silence_of(said)
    state = "stopped" if is_stopped(said["pid"]) else "blocked" if silence > SILENT_AFTER else "busy" if said["busy"] else "idle"
    running = [{"function": function, "id": task_id, "for": round(now - since, 1)} for function, task_id, since in said["running"]]
    same = {key: said[key] for key in ("pid", "name", "role", "address", "version", "started_at", "connections", "rate", "lag", "gauges")}
    return {
        **same,
        "memory": memory_of(said),
        "tasks": said["began"],
        "busy": said["busy"],
        "state": state,
        "silent": round(silence, 1),
        "running": running,
    }


def _summary(head: dict[str, Any]) -> list[tuple[str, str]]:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(head["started_at"]))
    ends = ", ".join(f"{count} {outcome}" for outcome, count in sorted(head["finished"].items()))
    return [
        ("version", f"{head['version']}, Python {head['python']}"),
        ("started", f"{began}, {age(head['uptime'])} ago"),
        ("load", " ".join(f"{load:.2f}" for load in head["load"])),
        ("tasks", f"{head['accepted']} accepted by gateways; over: {ends or 'none'}"),
        ("retried", str(head["retried"])),
        ("respawns", str(head["respawns"])),
    ]


def _row(process: dict[str, Any]) -> tuple[str, ...]:
    blocked = process["state"] == "blocked"
    return (
        str(process["pid"]),
        f"{process['memory'] / 1024 / 1024:.1f} MiB",
        process["name"],
        process["address"] or "-",
        str(process["connections"]),
        str(process["tasks"]),
        f"{process['rate']:g}",
        f"blocked {age(process['silent'])}" if blocked else process["state"],
        _running(process),
    )


def _running(process: dict[str, Any]) -> str:
    gauges, running = process["gauges"], process["running"]
    if process["role"] == "gateway":
        return f"{gauges.get('queued', 0)} wait, {gauges.get('running', 0)} at {gauges.get('workers', 0)} workers"
    named = [f"{one['function']} {one['id'] or '(no id)'} {age(one['for'])}" for one in running[:MOST_RUNNING]]
    more = process["busy"] - len(named)
    return ", ".join(named) + (f" and {more} more" if named and more > 0 else "")
