"""How a command ends: one exit status for each way in which a task can end, or not come to be. `--help` and README list them."""

from types import MappingProxyType
from typing import Final

NOT_WRITTEN: Final = 1
"""The output cannot be written, because the disk is full, say; of a task nothing more is known than was printed."""
REFUSED: Final = 14
UNAVAILABLE: Final = 15
LEFT: Final = 130
"""Ctrl-C for the second time: what becomes of the task is not known."""
CLOSED_PIPE: Final = 141
"""Whoever read the output has gone (as SIGPIPE would have it)."""

OF_EVENT: Final = MappingProxyType({"succeeded": 0, "failed": 10, "timed_out": 11, "cancelled": 12, "interrupted": 13})
"""The status by the final event."""

HELP: Final = """\
\b
Exit status: 0 succeeded, 2 the command line cannot be used,
10 failed, 11 timed_out, 12 cancelled, 13 interrupted (it may or may
not have taken effect), 14 refused (nothing was accepted),
15 unavailable (no server, or the connection was lost for good),
130 left by a second Ctrl-C, 1 the output cannot be written."""
