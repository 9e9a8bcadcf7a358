"""What the command line has to say to a master that runs: end, or load changed code. It is found by the lock that it holds.

A number in a file may be somebody else's by now; who holds the lock of the run directory is the master, and a descriptor of the process
(pidfd_open(2)) makes sure that nobody else is signalled. The PID file is for others, who expect one.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from app import rundir
from app.child import EXIT_CRASHED, EXIT_NOT_BOOTED, EXIT_NOT_RUNNING
from app.errors import SettingsError
from app.privileges import Identity
from app.reload import BOOT_LIMIT, SWITCH_LIMIT, Outcome

FAST_PATIENCE = 30.0
"""Seconds that a master has to end when it is told to end fast, and beyond the graceful limit when not."""

_LOOK_EVERY = 0.05


class Running(NamedTuple):
    """A master that runs, and a descriptor of it, which is readable once it has ended."""

    pid: int
    descriptor: int

    def tell(self, number: int) -> None:
        """Send it a signal. Raises `SettingsError` where that is not for us to do."""
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except ProcessLookupError:
            return  # it has ended meanwhile
        except PermissionError:
            raise SettingsError(f"the server (pid {self.pid}) is another user's: ask as that one, or as root") from None

    def ended(self, timeout: float) -> bool:
        """Block until it has ended; False after so many seconds."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000))


def find(run_dir: Path) -> Running | None:
    """The master of this run directory. Raises `SettingsError` where that is not for us to know."""
    try:
        pid = rundir.master(run_dir)
        if not pid:
            return None
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except PermissionError:
        raise SettingsError(f"--data-dir: {run_dir} is another user's: ask as that one, or as root") from None
    if rundir.master(run_dir) == pid:  # then the descriptor is of nobody else
        return Running(pid, descriptor)
    os.close(descriptor)
    return None


def stop(run_dir: Path, patience: float, number: int) -> int:
    """Tell it to end, and wait until it has; the exit code."""
    running = find(run_dir)
    if running is None:
        return _nobody(run_dir)
    running.tell(number)
    if running.ended(patience):
        print(f"handoff: stopped (pid {running.pid})")
        return 0
    return _complain(f"the server (pid {running.pid}) has not ended within {patience:g} s", EXIT_CRASHED)


def reload(run_dir: Path) -> int:
    """Tell it to load changed code, and wait until that is done; the exit code says whether it is."""
    running = find(run_dir)
    if running is None:
        return _nobody(run_dir)
    before = Outcome.read(run_dir)
    running.tell(signal.SIGHUP)
    until = time.monotonic() + 2 * (BOOT_LIMIT + SWITCH_LIMIT)
    while (now := Outcome.read(run_dir)).ended <= before.begun:  # one that is under way may have loaded what was there before
        if now.begun < before.begun:
            before = now  # that was what the master before this one had left
        if running.ended(_LOOK_EVERY):
            return _complain("the server has ended meanwhile", EXIT_NOT_RUNNING)
        if time.monotonic() > until:
            return _complain("the reload does not come to an end; the log says why", EXIT_CRASHED)
    if now.failed > before.failed:
        return _complain("the code does not load, and what served before serves on; the log says why", EXIT_NOT_BOOTED)
    print(f"handoff: reloaded (pid {running.pid})")
    return 0


def _nobody(run_dir: Path) -> int:
    return _complain(f"nothing runs with {run_dir.parent}", EXIT_NOT_RUNNING)


def _complain(text: str, code: int) -> int:
    print(f"handoff: {text}", file=sys.stderr)
    return code


def write_pid(path: Path, identity: Identity) -> Callable[[], None]:
    """Write our process id into a file; what removes it again. Raises `SettingsError`."""
    try:
        descriptor = identity.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, b"%d\n" % os.getpid())
        os.close(descriptor)
    except OSError as error:
        raise SettingsError(f"--pid-file: cannot write to {path}: {error.strerror}") from None
    return lambda: _remove(path)


def _remove(path: Path) -> None:
    """Where its directory is root's, and we are not root any more, it can only be emptied."""
    with contextlib.suppress(OSError):
        if path.read_bytes().strip() != b"%d" % os.getpid():
            return
        try:
            path.unlink()
        except PermissionError:
            os.truncate(path, 0)
