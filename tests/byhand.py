"""A gateway that is driven by hand: every line that one says to a worker, and every line that a worker answers, under a test's control."""

import socket
import time
import uuid
from pathlib import Path
from typing import Any
from zlib import crc32

from tests.harness import FINAL, TextClient, wait_until


def own_sockets(data_dir: Path) -> list[str]:
    """The sockets of the local workers, one of each process."""
    return sorted(map(str, (data_dir / "run").glob("worker-*.sock")))


class Gateway(TextClient):
    """One connection of a gateway to a worker. `heard` keeps all that was received, but for pongs."""

    def __init__(self, address: tuple[str, int] | str, journal: str = "", claims: list[Any] | None = None) -> None:
        super().__init__(address)
        self.journal = journal or uuid.uuid4().hex
        self.heard: list[Any] = []
        self.description: dict[str, Any] = self.ask({"describe": True})["describe"]
        self.send({"claim": [_whole(claim) for claim in claims or []], "journal": self.journal})

    def submit(self, task_id: str, function: str, args: Any = None, attempt: int = 1, seq: int = 1, **more: Any) -> None:
        """Place a task, as one that has been accepted and journalled."""
        numbers = {"attempt": attempt, "seq": seq, "dispatch": dispatch_of(task_id, attempt)}
        self.send({"id": task_id, "function": function, "args": {} if args is None else args, **numbers, **more})

    def hear(self, timeout: float = 15.0) -> Any:
        """The next line, kept."""
        line = self.receive(timeout)
        if "pong" not in line:
            self.heard.append(line)
        return line

    def final(self, task_id: str, timeout: float = 15.0) -> Any:
        """The final event of a task, or a `retrying`; or what it was refused with."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.heard:
                if line.get("id") == task_id and (line.get("event") in FINAL or line.get("event") == "retrying" or "event" not in line):
                    return line
            self.hear(deadline - time.monotonic())

    def events(self, task_id: str) -> list[Any]:
        """What was heard of a task so far."""
        return [line for line in self.heard if line.get("id") == task_id and "event" in line]

    def settle(self) -> None:
        """Hear all that the worker has to say at the moment."""
        mark = uuid.uuid4().hex
        self.send({"ping": mark})
        while self.hear() != {"pong": mark}:
            pass

    def until_event(self, task_id: str, event: str) -> Any:
        """The first such event of a task."""
        found = [line for line in self.heard if line.get("id") == task_id and line.get("event") == event]
        while not found:
            line = self.hear()
            found = [line] if line.get("id") == task_id and line.get("event") == event else []
        return found[0]

    def cut(self) -> None:
        """Break the connection, as a gateway that is killed does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


def comes_back(gateway: Gateway, address: tuple[str, int] | str, claims: list[Any]) -> Gateway:
    """The same gateway on a new connection."""
    again: list[Gateway] = []

    def connect() -> bool:
        again.append(Gateway(address, gateway.journal, claims))
        return True

    wait_until(connect)
    return again[0]


def _whole(claim: list[Any]) -> list[Any]:
    """A claim; where it says nothing of its dispatch, it is that of the task's `submit`."""
    return claim if len(claim) == 4 else [*claim, dispatch_of(claim[0], claim[1])]


def dispatch_of(task_id: str, attempt: int) -> int:
    """The number that `Gateway.submit` gives the dispatch of this attempt."""
    return crc32(f"{task_id} {attempt}".encode())
