"""A process that supervisord started, as it sees that itself: it does not outlive supervisord. What supervisord is told of us is in
`supervisord.d/`.

supervisord sets SUPERVISOR_ENABLED, and reads what its processes print through pipes.
"""

import os
import select
import signal
import sys
from collections.abc import Mapping

from app.child import EXIT_ORPHANED, die_with_parent

_STDOUT = 1


def follow(environ: Mapping[str, str]) -> None:
    """Under supervisord, end as TERM ends this process when supervisord is gone, whatever ended it; else its successor would find the
    ports taken. To be called early: what began when supervisord was gone already ends here."""
    if not environ.get("SUPERVISOR_ENABLED"):
        return
    die_with_parent(os.getppid(), signal.SIGTERM)
    if _nobody_reads():
        sys.exit(EXIT_ORPHANED)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe that has lost its reader."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
