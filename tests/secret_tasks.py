"""Tasks that look for what they should not find, the secret: in their own environment, and in those of the processes above."""

import os
from pathlib import Path

from workers import task


def environments() -> list[str]:
    """What the kernel shows of this process and of those above it, and what this one would hand on."""
    found, pid = [str(dict(os.environ))], os.getpid()
    while (pid > 1 and b"run.py" in (command := Path(f"/proc/{pid}/cmdline").read_bytes())) or b"workers.isolated" in command:
        found += [Path(f"/proc/{pid}/environ").read_text(errors="replace"), command.decode(errors="replace")]
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


@task
def look() -> list[str]:
    """In a greenlet of the worker."""
    return environments()


@task(run_in="thread")
def look_in_a_thread() -> list[str]:
    """In a thread of it."""
    return environments()


@task(run_in="process")
def look_in_a_process() -> list[str]:
    """In a process of its own."""
    return environments()
