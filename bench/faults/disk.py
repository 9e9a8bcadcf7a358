"""The rows of the disk: an fsync that fails, a disk that is full; and what strace saw of the order of things."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.faults.accounts import Accounts
from bench.faults.kills import ALL, FLAGS
from bench.faults.stage import Mix, Plan, Stage, staged
from tests.harness import wait_until

EXIT_JOURNAL = 5
"""As `app/child.py` says."""


class Skipped(Exception):
    """This machine does not let the row be played; the text says what it lacks."""


@contextmanager
def traced(pid: int, *options: str) -> Iterator[Path]:
    """A running process and its threads under strace; the file that this writes. Raises `Skipped`."""
    if shutil.which("strace") is None:
        raise Skipped("strace is not installed")
    with tempfile.TemporaryDirectory(prefix="handoff-strace-") as room:
        trace, said = Path(room) / "trace", Path(room) / "said"
        with said.open("wb") as stderr:
            process = subprocess.Popen(["strace", "-f", "-p", str(pid), "-o", str(trace), *options], stderr=stderr)
        try:
            wait_until(lambda: b"attached" in said.read_bytes() or process.poll() is not None)
            if b"attached" not in said.read_bytes():
                raise Skipped(f"strace may not attach: {said.read_text().strip()}")
            yield trace
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def fsync_fails(plan: Plan) -> Accounts:
    """fdatasync fails with EIO: that gateway ends with an error, and what it had not on the disk was not acknowledged."""
    with staged("fsync fails", plan, ALL, *FLAGS, lines=2, window=10) as stage:
        for number in stage.portions():
            _fail_next_sync(stage, 1 + number % 5)
        accounts = stage.books()
    log = stage.logs[-1]
    accounts.want(log.count("journal-broken") == accounts.kills, f"{log.count('journal-broken')} gateways saw it, of {accounts.kills}")
    accounts.want(len(re.findall(rf"gateway \(pid \d+\) ended: exit code {EXIT_JOURNAL}", log)) == accounts.kills, "another exit code")
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}")
    accounts.want(accounts.extra == 0, f"E = {accounts.extra}")
    return accounts


def _fail_next_sync(stage: Stage, nth: int) -> None:
    """The nth from now on, in the gateway alone; the one after it is well again."""
    pid = stage.house.gateway_pid()
    before = stage.house.log().count("journal-broken")
    with traced(pid, "-e", "trace=fdatasync,fsync", "-e", f"inject=fdatasync,fsync:error=EIO:when={nth}"):
        stage.more()
        wait_until(lambda: stage.house.log().count("journal-broken") > before, 30, stage.state)
        wait_until(lambda: stage.house.gateway_pid() != pid, 60, stage.state)  # strace is not to let go of it in the midst of its end
    stage.kills += 1
    stage.killed.append(pid)


DISK = 8 * 1024 * 1024
MOST_ON_IT = 2000
"""Tasks that such a disk can hold with all that is said of them."""

SMALL: Mix = {name: args for name, args in ALL.items() if name != "large"}


@contextmanager
def small_disk(size: int = DISK) -> Iterator[Path]:
    """A tmpfs of so many bytes, mounted somewhere. Raises `Skipped` for who may not."""
    with tempfile.TemporaryDirectory(prefix="handoff-disk-") as room:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", room]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Skipped(f"no disk of its own can be mounted: {done.stderr.strip()}")
        try:
            yield Path(room)
        finally:
            subprocess.run(["umount", "-l", room], check=True)


def disk_full(plan: Plan) -> Accounts:
    """The journal's disk is full: `disk_full`; running work finishes; tasks are accepted within 5 s of there being room."""
    took = []
    plan = replace(plan, tasks=min(plan.tasks, MOST_ON_IT))
    with small_disk() as disk, staged("disk full", plan, SMALL, *FLAGS, data_dir=disk / "data", lines=2, window=10) as stage:
        for number in stage.portions():
            before = stage.driver.refused("disk_full")
            _fill(disk)
            stage.more()
            wait_until(lambda before=before: _one_more(stage) > before, 30, stage.state)  # type: ignore[misc]
            _no_work_is_stuck(stage)
            if number % 3 == 2:  # and in this state it is killed
                stage.kill(stage.house.gateway_pid())
                wait_until(lambda: stage.house.gateway_pid() != stage.killed[-1], 60, stage.state)
            took.append(_make_room(stage, disk))
        accounts = stage.books()
    accounts.want(max(took) < (5.0 if plan.long else 15.0), f"accepting again after {max(took):.2f} s")
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}")
    accounts.want(accounts.extra == 0, f"E = {accounts.extra}")
    accounts.remarks.append(f"full {len(took)} times; accepting again {max(took):.2f} s after there was room, at most")
    return accounts


def _fill(disk: Path) -> None:
    """Take all that is left; not what the gateway has kept aside, which it gives up for its own work as soon as it finds the disk full."""
    left = os.statvfs(disk)
    most = left.f_bavail * left.f_frsize
    with (disk / "filler").open("ab", buffering=0) as filler:
        for size in (65536, 4096):
            try:
                while filler.tell() + size <= most:
                    filler.write(b"\0" * size)
            except OSError:
                continue


def _one_more(stage: Stage) -> int:
    """How often a task was refused for want of room, and one task more: the journal's files have some room in themselves."""
    stage.driver.add({"id": f"one-more-{len(stage.driver.tasks)}", "function": "once", "args": [0]})
    return stage.driver.refused("disk_full")


def _no_work_is_stuck(stage: Stage) -> None:
    """What was accepted, and is at a worker, ends; what waits in the queue waits for the disk."""
    running = [task for task in stage.driver.tasks.values() if any(event == "started" for _, event in list(task.events)) and not task.final]
    wait_until(lambda: all(task.final or task.events[-1][1] == "retrying" for task in running), 30, stage.state)


def _make_room(stage: Stage, disk: Path) -> float:
    """Seconds until something new was accepted."""
    began = time.monotonic()
    os.unlink(disk / "filler")
    wait_until(lambda: stage.driver.accepted_at > began, 60, stage.state)
    return time.monotonic() - began


def trace_of_accepts(count: int) -> str:
    """What strace saw of a gateway that accepted so many tasks, one after the other: syncs and what it wrote. Raises `Skipped`."""
    plan = Plan(count, 0, 0, False)
    calls = ("-s", "200", "-e", "trace=fdatasync,fsync,write,sendto,sendmsg,writev")
    with (
        staged("traced", plan, {"once": [0]}, *FLAGS, plain=True, lines=1, window=1) as stage,
        traced(stage.house.gateway_pid(), *calls) as trace,
    ):
        stage.driver.allow(1)
        wait_until(lambda: stage.driver.finished == count, 60, stage.state)
        return trace.read_text(errors="replace")
