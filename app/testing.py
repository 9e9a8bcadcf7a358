"""A pytest plugin for the tests of one's own tasks: `pytest_plugins = ["app.testing"]` in conftest.py gives these fixtures.

    run_task          runs a task in the test's own process (`workers/testing.py`)
    handoff_server    starts a real server on free ports, and sees that nothing is left of it

and `from app.testing import wait_until` is a wait that is not a sleep. What a server is made of stands in `app/testbed.py`. The workers'
half is named to pytest here and not imported: as `run.py` joins gateway and workers in the product, pytest does in a test. No part of the
product imports this; pytest is needed for the tests alone. (PYTEST_DONT_REWRITE: a conftest.py may import from here before it is a plugin.)
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.client import TaskClient
from app.remote import Args, Session
from app.remote.socket import Pace
from app.remote.task import RemoteTask
from app.testbed import Process, Server, wait_until
from app.testproxy import Proxy

__all__ = ["HandoffServer", "Process", "Server", "handoff_server", "wait_until"]

pytest_plugins = ["workers.testing"]

TIMEOUT = 30.0
"""Seconds for which a call waits unless told otherwise, for a task or for a process that is replaced."""

_PACE = Pace(first_delay=0.02, max_delay=0.2)


class HandoffServer(Server):
    """A real server: master, gateway and workers, in a temporary directory of its own. What the test can import, its tasks can.

    `ws_url`, `http_url` and `text_address` lead through a proxy, so that the connections can be dropped while everything stays up. It
    reads no `HANDOFF_…` and no `SMTP_URL` of the test's environment: mail goes to a Maildir in `data_dir`.
    """

    def __init__(self, *flags: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        """`flags` as those of `run.py`; without them two workers, on free ports. `env`: variables beside the test's own."""
        self._gateway, self._workers = Proxy(), Proxy()
        self._session: Session | None = None
        self._client: TaskClient | None = None
        origin = f"http://127.0.0.1:{self._gateway.port}"  # of a page that was loaded through the proxy
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with ExitStack() as stack:
            for proxy in (self._gateway, self._workers):
                stack.enter_context(proxy)
            super().__init__(*flags, "--origins", origin, env={"PYTHONPATH": path, **(env or {})}, cwd=cwd)
            self._stack = stack.pop_all()

    def _address(self, words: str) -> str:
        """That of the proxy, which leads to the one that was printed. What is no TCP port is left as it is."""
        printed = super()._address(words)
        proxy = self._workers if words.startswith("workers") else self._gateway
        found = re.search(r"([\d.]+):(\d+)", printed)
        if found is None:
            return printed
        proxy.target = found.group(1), int(found.group(2))
        return printed.replace(found.group(), f"127.0.0.1:{proxy.port}")

    # Calling tasks.

    @property
    def session(self) -> Session:
        """A session with the gateway, kept for the test; it comes back by itself when its connection is lost."""
        if self._session is None:
            self._session = self._stack.enter_context(Session(self.ws_url, pace=_PACE))
        return self._session

    def submit(self, function: str, args: Args = None, **options: Any) -> RemoteTask:
        """Hand a task to the gateway: it is journalled, retried, and survives what the test does to the server. As `Session.submit`."""
        return self.session.submit(function, args, **options)

    def call(self, function: str, args: Args = None) -> Any:
        """Run a task straight on a worker, as blocking code does with `TaskClient`, and return its result: nothing is retried."""
        if self._client is None:
            host, port = self.text_address
            self._client = TaskClient(f"{host}:{port}", timeout=TIMEOUT)
            self._stack.callback(self._client.close)
        return self._client.call(function, args)

    # Breaking things.

    def kill_worker(self, name: str = "", timeout: float = TIMEOUT) -> int:
        """Kill one worker process with SIGKILL, and wait until the master has another in its place; the pid of the one killed.

        `name`: which one, as `started` says it (`worker-1`); any, without.
        """
        return self._kill_role(name or "worker", timeout)

    def kill_gateway(self, timeout: float = TIMEOUT) -> int:
        """As `kill_worker`, for the gateway."""
        return self._kill_role("gateway", timeout)

    def _kill_role(self, name: str, timeout: float) -> int:
        before = [(each, pid) for each, pid in sorted(self._roles()) if each == name or each.partition("-")[0] == name]
        if not before:
            raise AssertionError(f"no process is called {name!r}; there are {self.describe()}")
        role, killed = before[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self._ready_again(role, killed), timeout, lambda: f"{role} was killed and is not back\n{self.log()}")
        return killed

    def _ready_again(self, role: str, killed: int) -> bool:
        return any(each == role and pid != killed for each, pid in self._roles())

    def drop_connections(self) -> None:
        """End every connection of clients, to the gateway and to the workers' port, without a word of farewell, as a network does that
        fails. New ones are taken at once."""
        for proxy in (self._gateway, self._workers):
            proxy.cut()
            proxy.mend()

    def clean(self) -> None:
        """End it, and look for what is left. Fails the test where a process had to be killed, or is left."""
        with self._stack:
            super().clean()


@pytest.fixture
def handoff_server() -> Iterator[Callable[..., HandoffServer]]:
    """Starts real servers: `handoff_server("--tasks", "shop.jobs")`. They end after the test, which fails where a process is left."""
    started: list[HandoffServer] = []

    def start(*flags: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> HandoffServer:
        started.append(HandoffServer(*flags, env=env, cwd=cwd))
        return started[-1]

    yield start
    clean_all(started)


def clean_all(servers: Sequence[Server]) -> None:
    """End them, the last first, and each of them whatever becomes of the others; then fails where any was not clean."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.clean)
