"""What legacy code does, and what becomes of it in a worker: functions for `tests/test_docs_legacy.py`, which runs them in every way."""

import os
import signal
import sys
import threading
import time
from typing import Any

IMPORTED_IN = os.getpid()
LOCAL = threading.local()
BALANCES: dict[str, int] = {}


def remembers(value: int) -> Any:
    """What the last task that ran here left in a thread local; leaves the value."""
    before = getattr(LOCAL, "value", None)
    LOCAL.value = value
    return before


def times_out_by_alarm() -> str:
    """Waits, but not for long."""
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(1)
    try:
        time.sleep(20)
    except TimeoutError:
        return "in time"
    return "late"


def _late(number: int, frame: object) -> None:
    raise TimeoutError


def forks() -> int:
    """How a fork ended that ended at once."""
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def adds() -> int:
    """Adds one to a global, with a wait in between."""
    return _add("here")


def adds_elsewhere() -> int:
    """The same with another global."""
    return _add("elsewhere")


def _add(where: str) -> int:
    balance = BALANCES.get(where, 0)
    time.sleep(0.2)
    BALANCES[where] = balance + 1
    return BALANCES[where]


def places() -> list[int]:
    """The process in which this was imported, and the one in which it runs."""
    return [IMPORTED_IN, os.getpid()]


def waits_without_end() -> None:
    """And minds no ordinary exception."""
    while True:
        try:
            time.sleep(2)
            return
        except Exception:  # noqa: BLE001, S112 - as such code does
            continue


def prints(text: str) -> None:
    """Prints it."""
    print(text)


def asks() -> str:
    """Somebody."""
    return input("name? ")


def leaves() -> None:
    """As a script does."""
    sys.exit("enough")
