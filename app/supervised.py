"""A process that supervisord started, as it sees that itself: it does not outlive supervisord, and what its tasks have started does not
outlive it. What supervisord is told of us is in `supervisord.d/`.

supervisord sets SUPERVISOR_ENABLED and the variables of `MARKS`, makes each of its processes the leader of a group, and reads what they
print through pipes. Under a master of ours it is the master who ends what a process leaves; here the process does so when it ends, and
where it was killed, its successor.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from app.child import EXIT_ORPHANED, die_with_parent

MARKS = ("SUPERVISOR_SERVER_URL", "SUPERVISOR_GROUP_NAME", "SUPERVISOR_PROCESS_NAME")
"""Variables that together name one program of one supervisord; what it starts inherits them."""

STARTED_AFTER = 1.1
"""Seconds after which supervisord counts a process as started: its `startsecs`, and a little."""

_STDOUT = 1
_FIELD_OF_START = 21 - 2
"""Of /proc/PID/stat, behind pid and name."""


def follow(environ: Mapping[str, str]) -> None:
    """Under supervisord, end as TERM ends this process when supervisord is gone, whatever ended it; else its successor would find the
    ports taken. To be called early: what began when supervisord was gone already ends here."""
    if not environ.get("SUPERVISOR_ENABLED"):
        return
    die_with_parent(os.getppid(), signal.SIGTERM)
    if _nobody_reads():
        sys.exit(EXIT_ORPHANED)
    marks = {f"{name}={environ[name]}".encode() for name in MARKS if name in environ}
    if len(marks) == len(MARKS):
        _end_what_was_left(marks)


def outlast_start(environ: Mapping[str, str]) -> None:
    """To be called by what can serve, before it does: under supervisord, block until this process counts as started. What tasks do to it
    later is no failure to start, after some of which supervisord would give it up; nor is it when it leaves after many tasks."""
    if environ.get("SUPERVISOR_ENABLED"):
        time.sleep(max(0.0, STARTED_AFTER - _age()))


def end_what_is_left(environ: Mapping[str, str]) -> None:
    """To be called last: under supervisord, kill the others of this process's group."""
    if environ.get("SUPERVISOR_ENABLED") and os.getpgrp() == os.getpid():
        for pid, group in _processes():
            if group == os.getpid() and pid != group:
                _kill(pid)


def _age() -> float:
    """Seconds since this process was forked."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_FIELD_OF_START]) / os.sysconf("SC_CLK_TCK")


def _nobody_reads() -> bool:
    """Whether stdout is a pipe that has lost its reader."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _end_what_was_left(marks: set[bytes]) -> None:
    """Of a predecessor: those in a group whose leader is gone. Whoever leads a group of its own was meant to stay."""
    for pid, group in _processes():
        with suppress(OSError):  # it has ended, or is somebody else's
            if not Path(f"/proc/{group}").exists() and marks <= set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                _kill(pid)


def _processes() -> Iterator[tuple[int, int]]:
    """Every process with its group."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(ProcessLookupError):
            yield pid, os.getpgid(pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
