"""What the tasks of `tests/sample_tasks.py` left behind, and what clients were told of them, as lists to be judged."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tests.harness import FINAL, Server
from tests.sample_tasks import EFFECTS


class Effect(NamedTuple):
    """One run of a task."""

    id: str
    attempt: int
    pid: int
    note: str


def effects(server: Server, task_id: str = "") -> list[Effect]:
    """Every run so far, or those of one task, in order."""
    path = server.data_dir / EFFECTS
    lines = path.read_text().split("\n")[:-1] if path.exists() else []  # not splitlines: a note may hold any character but that
    fields = (line.split(" ", 3) for line in lines)
    found = [Effect(name, int(attempt), int(pid), note) for name, attempt, pid, note in fields]
    return [effect for effect in found if not task_id or effect.id == task_id]


def runs(server: Server) -> Counter[str]:
    """How often each task ran."""
    return Counter(effect.id for effect in effects(server))


def open_gate(gate: Path) -> None:
    """Let those go on that wait for it."""
    gate.touch()


def said_of(messages: list[Any], task_id: str) -> list[Any]:
    """The events of one task among these messages."""
    return [message for message in messages if type(message) is dict and message.get("id") == task_id and "event" in message]


def check_story(events: list[Any], after: int = 0) -> None:
    """What a watcher was told of one task that is over: numbered without gap or double, accepted first, one final event, at the end."""
    assert [event["seq"] for event in events] == list(range(after + 1, after + 1 + len(events))), events
    assert [event["event"] for event in events if event["event"] in FINAL] == [events[-1]["event"]], events
    if after == 0:
        assert events[0]["event"] == "accepted", events
