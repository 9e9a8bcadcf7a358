"""Tasks in the test's own process: the fixture `run_task`, which runs a task as a worker does, without a socket or another process.

Registry, checks, `current()`, events, limits and retries are a worker's own. What differs is said here. Blocking code is not made
cooperative: it runs in the test's thread, where a debugger, `monkeypatch` and mocks reach it, and a task with `run_in="process"` does too.
Nothing is waited for between two attempts, and each `progress` is told.

`app/testing.py` names this module to pytest, which joins the two: neither imports the other. No part of the product imports this.
(PYTEST_DONT_REWRITE: a conftest.py may import from here before it is a plugin.)
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app import wire
from app.errors import UnknownFunction
from app.messages import State, new_id
from workers.registry import REGISTRY, Function, Registry
from workers.testbed import KeptLines, TestedExecutor, ToldAttempt

_PASS_ON = (KeyboardInterrupt, pytest.fail.Exception, pytest.skip.Exception, pytest.exit.Exception)
"""What is no ending of a task, but of the test."""


@dataclass(frozen=True)
class TaskRun:
    """A task that is over. `events` are those that a worker sends, from `started` to the final one; `raised` is what ended it, if
    anything did."""

    function: str
    events: tuple[dict[str, Any], ...]
    raised: BaseException | None

    @property
    def state(self) -> str:
        """The name of the final event: `succeeded`, `failed`, `timed_out`, `cancelled`."""
        return str(self.events[-1]["event"])

    @property
    def result(self) -> Any:
        """What the task returned, as its caller gets it: through JSON. Fails the test, with what it raised, where it did not succeed."""
        if self.state != "succeeded":
            raise AssertionError(str(self)) from self.raised
        return self.events[-1]["result"]

    @property
    def error(self) -> dict[str, Any]:
        """The error object of its end: `code`, `message` and details. Fails the test where it succeeded."""
        if self.state == "succeeded":
            raise AssertionError(str(self))
        error: dict[str, Any] = self.events[-1]["error"]
        return error

    @property
    def outputs(self) -> list[Any]:
        """What a generator yielded, in all attempts."""
        return [event["value"] for event in self.events if event["event"] == "output"]

    @property
    def progress(self) -> list[dict[str, Any]]:
        """What was said of how far it is: `done`, and `total` and `note` where they were given."""
        told = (event for event in self.events if event["event"] == "progress")
        return [{key: event[key] for key in ("done", "total", "note") if key in event} for event in told]

    @property
    def attempts(self) -> int:
        """How often it was begun."""
        return int(self.events[-1]["attempt"])

    def __str__(self) -> str:
        end = self.events[-1]
        said = f"returned {end['result']!r}" if self.state == "succeeded" else f"{end['error']['code']}: {end['error']['message']}"
        return f"the task {self.function} has {self.state}: {said}\nits events: {', '.join(event['event'] for event in self.events)}"


class TaskRunner:
    """What the fixture `run_task` gives; it is called."""

    def __init__(self, data_dir: Path) -> None:
        self._executor = TestedExecutor(data_dir)

    def __call__(self, task: str | Callable[..., Any], args: dict[str, Any] | list[Any] | None = None, timeout: float = 30.0) -> TaskRun:
        """Run a task to its end: a function, the name of a task whose module was imported, or `module:function` as in `--task`.

        `args` as in a request: by name, by position, or none. Raises `BadArguments` or `UnknownFunction` where a request would be refused
        so, `TypeError` or `ValueError` for arguments that JSON has no form for. Fails the test where the task waits for longer than
        `timeout` seconds.
        """
        spec = _function(task)
        line = wire.encode({} if args is None else args)
        sink = KeptLines()
        attempt = self._attempt(spec, line, sink, None)
        while self._end_of(attempt, timeout) is State.RETRYING:
            attempt = self._attempt(spec, line, sink, attempt)
        return TaskRun(spec.name, tuple(map(wire.decode, sink.lines)), attempt.raised)

    def _attempt(self, spec: Function, line: bytes, sink: KeptLines, before: ToldAttempt | None) -> ToldAttempt:
        """Bound anew each time: an attempt may have changed its arguments."""
        args, kwargs = spec.bind(wire.decode(line))
        if before is None:
            attempt = ToldAttempt(spec, new_id(), args, kwargs, sink)
        else:
            attempt = ToldAttempt(spec, before.label, args, kwargs, sink, attempt=before.attempt + 1)
            attempt.seq = before.seq
        attempt.may_retry = True
        return attempt

    def _end_of(self, attempt: ToldAttempt, timeout: float) -> State:
        self._executor.slots.take(attempt.spec)
        self._executor.start(attempt)
        if not attempt.over.wait(timeout):
            self._executor.cancel(attempt)
            raise AssertionError(f"the task {attempt.function} has not ended within {timeout:g} s")
        if isinstance(attempt.raised, _PASS_ON):
            raise attempt.raised
        return attempt.state

    def close(self) -> None:
        """Leave no thread behind, unless a task is still in it."""
        self._executor.close()


@pytest.fixture
def run_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskRunner]:
    """Runs a task in this very process: `run_task(charge, {"customer": 7}).result`. Its data directory is `tmp_path`; mail goes to a
    Maildir there, whatever `SMTP_URL` says, unless the test sets that itself."""
    for name in ("SMTP_URL", "HANDOFF_SMTP_URL"):
        monkeypatch.delenv(name, raising=False)
    runner = TaskRunner(tmp_path)
    yield runner
    runner.close()


def _function(task: str | Callable[..., Any]) -> Function:
    """As it is registered; one that is not registered becomes a task as it is, for this once."""
    if not isinstance(task, str):
        found = REGISTRY.find(task) or Registry().add(task)
    elif ":" in task:
        found = Registry().add_dotted(task)
    else:
        found = _named(task)
    if found.options.run_in == "process":
        found = dataclasses.replace(found, options=dataclasses.replace(found.options, run_in="greenlet"))
    return found


def _named(name: str) -> Function:
    REGISTRY.load()
    try:
        return REGISTRY.get(name)
    except UnknownFunction as error:
        error.add_note("import the module that has it, in the test or in conftest.py")
        raise
