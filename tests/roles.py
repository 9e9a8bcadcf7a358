"""A master with roles that misbehave, for the tests of the master: `python -m tests.roles KIND COUNT`, which prints `ready`."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from app import listeners, log, reload
from app.address import Address
from app.child import Child
from app.errors import SettingsError
from app.master import Master
from app.offspring import Role


def idle(child: Child) -> None:
    """Serves nothing, until a signal ends it."""
    child.ready()
    while True:
        signal.pause()


def stubborn(child: Child) -> None:
    """Ends for nothing but a kill."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    idle(child)


def parent(child: Child) -> None:
    """Has a process of its own, which nobody told to end with it."""
    subprocess.Popen(["sleep", "300"])
    stubborn(child)


def short_lived(child: Child) -> None:
    """Serves, and ends at once."""
    child.ready()
    os._exit(1)


def not_booting(child: Child) -> None:
    """Raises before it is ready."""
    raise RuntimeError(f"{child.name} does not boot")


def not_loading(child: Child) -> None:
    """Was told something that cannot be used."""
    raise SettingsError("no such module")


def slow(child: Child) -> None:
    """Takes its time to boot."""
    time.sleep(300)
    child.ready()


def relay(child: Child) -> None:
    """Waits until the one before it lets go of a lock, which that does when it is told."""
    signal.signal(signal.SIGHUP, lambda *_: os._exit(0))
    _hold(child)


def stiff(child: Child) -> None:
    """The same, and does not let go."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _hold(child)


def _hold(child: Child) -> None:
    child.booted()
    held = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.lockf(held, fcntl.LOCK_EX)
    idle(child)


def slow_successor(child: Child) -> None:
    """Boots the first time; those who are to take over take their time."""
    if child.successor:
        slow(child)
    idle(child)


def late_trouble(child: Child) -> None:
    """Boots the first time only."""
    try:
        os.mkdir("booted")
    except FileExistsError:
        not_booting(child)
    idle(child)


KINDS: dict[str, Callable[[Child], None]] = {
    kind.__name__: kind
    for kind in (idle, stubborn, parent, short_lived, not_booting, not_loading, slow, relay, stiff, slow_successor, late_trouble)
}


def main(kind: str, count: int) -> int:
    """Run a master with so many processes of this kind."""
    log.configure("master")
    reload.BOOT_LIMIT = reload.SWITCH_LIMIT = 1.0
    role = Role("worker", count, listeners.listen(Address("127.0.0.1", 0), "--text"), KINDS[kind])
    return Master([role], graceful=0.2, level="info", on_ready=lambda: print("ready", flush=True)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
