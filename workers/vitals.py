"""What a worker process tells of its own state. That it lives at all is told by the answer itself; what it runs, its gateways know."""

import os

_STATM = "/proc/self/statm"
_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory() -> int:
    """The bytes of this process that are in memory (proc(5): the second field of statm), those that it shares with others included, and
    those of tasks in processes of their own not."""
    with open(_STATM, "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE
