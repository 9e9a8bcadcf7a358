"""What the master knows of the processes that it forks: their roles, their places, what they have said, and when a place is filled again.

Who acts on it, and when, is in `app/master.py`; what happens in the process itself, in `app/child.py`.
"""

import contextlib
import importlib.metadata  # noqa: F401 - all children want it, and it is what takes longest: loaded before the fork, it is loaded once
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.child import BOOTED, LEAVING, READY, Child

FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0


@dataclass(frozen=True, slots=True)
class Role:
    """So many processes that share a listener and do the same."""

    name: str
    count: int
    listener: socket.socket
    run: Callable[[Child], None]


@dataclass(slots=True, eq=False)
class Place:
    """A place for one process at a time: `worker-2` stays `worker-2` when it is replaced. `booted`: its code is loaded; `ready_at`: it
    serves, since then; `outdated`: another with newer code has taken its place; `successor`: it is started to take one."""

    name: str
    role: Role
    pid: int = 0
    pipe: int = -1  # on which it says that it is ready, and later that it leaves; until it is gone
    booted: bool = False
    ready_at: float = 0.0
    leaving: bool = False
    outdated: bool = False
    successor: bool = False
    failures: int = 0
    start_at: float = 0.0

    def hear(self) -> None:
        """What the process has said since."""
        with contextlib.suppress(BlockingIOError):
            while self.pipe >= 0:
                said = os.read(self.pipe, 1)
                if said == READY:
                    self.booted, self.ready_at = True, time.monotonic()
                elif said == BOOTED:
                    self.booted = True
                elif said == LEAVING:
                    self.leaving = True
                else:
                    self.hang_up()

    def hang_up(self) -> None:
        """Nothing more is to be heard."""
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1

    def hand_over(self) -> "Place":
        """The process that leaves goes on in a place of its own, which is returned; this one is free at once."""
        leaver = replace(self)
        self.pid, self.pipe, self.booted, self.ready_at, self.leaving = 0, -1, False, 0.0, False
        self.failures, self.start_at, self.successor = 0, 0.0, False
        return leaver

    def put_off(self) -> None:
        """When the place is filled again: at once the first time, then later and later, and never all together."""
        delay = FIRST_DELAY * 2 ** min(self.failures - 1, 16) if self.failures else 0.0
        self.failures += 1
        self.successor = False
        self.start_at = time.monotonic() + min(delay, LONGEST_DELAY) * random.uniform(0.5, 1.0)
        self.pid = 0
        self.hang_up()


def places(role: Role) -> list[Place]:
    """All of a role."""
    return [Place(_name(role, number), role) for number in range(1, role.count + 1)]


def _name(role: Role, number: int) -> str:
    return role.name if role.count == 1 and role.name == "gateway" else f"{role.name}-{number}"


def has_terminal() -> bool:
    """Whether this process can be spoken to from one; see tty(4)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def kill_group(pid: int) -> None:
    """The process that leads the group, and what it started; a fork that has not come to lead its group yet, alone."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
