"""A gateway whose commits come late, and real workers beside it in one data directory, each a process of its own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import ROOT, START_LIMIT, Process, Server, wait_until


class LateGateway(Server):
    """`tests/late_gateway.py` with these flags; ready when made."""

    def __init__(self, *flags: str, data_dir: Path) -> None:
        own = ("--ws", "127.0.0.1:0", "--data-dir", str(data_dir))
        Process.__init__(self, [sys.executable, "-m", "tests.late_gateway", *flags, *own], cwd=ROOT)
        self.data_dir = data_dir
        wait_until(self._is_ready, START_LIMIT, self.log)


@contextmanager
def late_house(data_dir: Path, *flags: str, workers: int = 2) -> Iterator[tuple[LateGateway, list[Server]]]:
    """The gateway, once it has met all workers, and these."""
    started: list[Server] = []
    try:
        for _ in range(workers):
            started.append(Server("worker", "--tasks", "tests.sample_tasks", "--graceful", "1", data_dir=data_dir))
        gateway = LateGateway(*flags, data_dir=data_dir)
        started.append(gateway)
        wait_until(lambda: gateway.log().count("link-up") == workers)
        yield gateway, started[:workers]
    finally:
        for process in reversed(started):
            process.clean()
