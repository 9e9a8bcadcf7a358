"""Workers in which each function of `tests/drivers.py` is a task, and what is seen of some of them at once: whether they overlap, and
whether the worker answers meanwhile."""

import re
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.databases import mariadb, postgres, redis
from tests.harness import FINAL, ROOT, Server, TextClient, wait_until
from tests.slowservers import SlowServers

AT_ONCE = 4
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds for which a task waits, at one try after the other."""
WAYS = ("greenlet", "thread", "process")
DATABASES = {
    "postgres": (postgres, ("psycopg", "psycopg2", "pg8000")),
    "mariadb": (mariadb, ("pymysql", "mysqlclient")),
    "redis": (redis, ("redis",)),
}


class Run(NamedTuple):
    """Of some tasks at once that each wait for so many seconds: how they ended, how long all of them took, and the longest that a ping
    waited meanwhile."""

    seconds: float
    ends: list[str]
    total: float
    longest: float

    @property
    def overlapped(self) -> bool:
        """Well under the sum, and nobody else was held up."""
        return self.total < 0.65 * len(self.ends) * self.seconds and self.answered

    @property
    def answered(self) -> bool:
        """Nobody else was held up for as long as one of them waits."""
        return self.longest < 0.6 * self.seconds

    @property
    def blocked(self) -> bool:
        """One after the other, and nobody else had a turn."""
        return self.total > 0.8 * len(self.ends) * self.seconds and self.longest > 0.7 * self.seconds


def run(server: Server, task: str, count: int, seconds: float = 0.5) -> Run:
    """So many of a task at once, in one worker that is pinged all the while."""
    with TextClient(server.text_address) as client, TextClient(server.text_address) as pinging:
        waits: list[float] = []
        over = threading.Event()
        heart = threading.Thread(target=ping, args=(pinging, waits, over))
        heart.start()
        wait_until(lambda: waits)
        began = time.monotonic()
        for number in range(count):
            client.send({"id": str(number), "function": task, "args": [seconds], "events": "final"})
        ends = [client.until(lambda message: message.get("event") in FINAL or "error" in message, 60) for _ in range(count)]
        total = time.monotonic() - began
        over.set()
        heart.join()
    return Run(seconds, [end.get("event", "refused") if "error" not in end else str(end["error"]) for end in ends], total, max(waits))


def ping(client: TextClient, waits: list[float], over: threading.Event) -> None:
    while not over.is_set():
        began = time.monotonic()
        client.ask({"ping": 1}, 60)
        waits.append(time.monotonic() - began)
        over.wait(0.01)


class Workers:
    """Workers in which each of `tests/drivers.py` is a task, once for each way to run it; started where they are first wanted."""

    def __init__(self, stack: ExitStack, home: Path) -> None:
        self._stack = stack
        self.home = home
        self.slow = stack.enter_context(SlowServers())
        self._places = {f"TEST_{name.upper()}": str(port) for name, port in self.slow.ports.items()}
        self._servers: dict[str, Server] = {}

    def place(self, name: str, place: object) -> None:
        """Where the tasks find something; to be said before the first worker starts."""
        self._places[f"TEST_{name.upper()}"] = str(place)

    @property
    def environ(self) -> dict[str, str]:
        """What a worker of ours has in its environment."""
        return {"PYTHONPATH": f"{ROOT}:{self.home}", **self._places}

    def with_database(self, name: str) -> None:
        """Start that database, once. Skips the test where there is none."""
        if f"TEST_{name.upper()}" not in self._places:
            self.place(name, self._stack.enter_context(DATABASES[name][0]()))

    def serving(self, function: str, *flags: str) -> Server:
        """A worker for the tasks that are made of this function, with further flags."""
        database = next((name for name, (_, users) in DATABASES.items() if function in users), "")
        if database:
            self.with_database(database)
        key = " ".join((database, *flags))
        if key not in self._servers:
            self._servers[key] = self._start(DATABASES[database][1] if database else _without_database(), *flags)
        return self._servers[key]

    def best(self, server: Server, task: str) -> Run:
        """With waits that get longer until some of it overlap; the first try of all also imports and connects."""
        for seconds in WAITS:
            self.slow.seconds = seconds
            found = run(server, task, AT_ONCE, seconds)
            assert found.ends == ["succeeded"] * AT_ONCE
            if found.overlapped:
                break
        return found

    def _start(self, functions: tuple[str, ...], *flags: str) -> Server:
        tasks = [f"{way}.{name}=tests.drivers:use_{name};run_in={way}" for name in functions for way in WAYS]
        words = [word for one in tasks for word in ("--task", one)]
        server = Server("worker", *words, "--process-slots", str(AT_ONCE), *flags, env=self.environ)
        self._stack.callback(server.clean)
        return server


def _without_database() -> tuple[str, ...]:
    used = {name for _, users in DATABASES.values() for name in users}
    there = re.findall(r"^def use_(\w+)", (ROOT / "tests" / "drivers.py").read_text(encoding="utf-8"), re.MULTILINE)
    return tuple(name for name in there if name not in used)
