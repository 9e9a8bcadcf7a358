"""The pytest plugin: a task in this very process behaves as on a worker, and a server that a test may break leaves nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import websocket

from app.errors import BadArguments, RemoteError, UnknownFunction
from app.testing import HandoffServer, wait_until
from tests import tried_tasks
from tests.harness import TextClient, WsClient
from workers.testing import TaskRunner

Start = Callable[..., HandoffServer]
TASKS = ("--tasks", "tests.tried_tasks")


def legacy(a: int, b: int = 2) -> int:
    """A function that knows nothing of tasks."""
    return a + b


# In this process.


@pytest.mark.parametrize("way", ["greenlet", "thread", "process"])
def test_each_progress_is_told_however_it_runs(run_task: TaskRunner, way: str) -> None:
    run = run_task(f"counts_in_{way}", {"count": 50})
    assert run.progress == [{"done": number, "total": 50} for number in range(1, 51)]
    assert run.result == [os.getpid(), way != "thread", 1]
    assert [event["seq"] for event in run.events] == list(range(1, 53))
    assert run.events[0] == {"id": run.events[0]["id"], "event": "started", "seq": 1, "attempt": 1, "worker": "test"}


def test_a_function_is_run_with_the_options_that_it_was_registered_with(run_task: TaskRunner) -> None:
    assert run_task(tried_tasks.waits_in_gevent).state == "timed_out"


@pytest.mark.parametrize("task", [legacy, "tests.test_testing:legacy"])
def test_a_function_that_is_no_task_becomes_one_for_once(run_task: TaskRunner, task: str | Callable[..., int]) -> None:
    assert run_task(task, {"a": 1}).result == 3
    with pytest.raises(UnknownFunction) as caught:
        run_task("legacy", [1])
    assert "import the module" in caught.value.__notes__[0]


def test_the_tasks_that_come_with_it_can_be_named(run_task: TaskRunner) -> None:
    assert run_task("countdown", {"start": 2}).outputs == [2, 1, 0]


@pytest.mark.parametrize(("args", "error"), [({"a": "one"}, BadArguments), ([1, 2, 3], BadArguments), ({"a": {1}}, TypeError)])
def test_arguments_that_no_gateway_would_take_are_refused(run_task: TaskRunner, args: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_task(legacy, args)  # type: ignore[arg-type]


def test_a_result_that_is_no_json_is_a_failure(run_task: TaskRunner) -> None:
    run = run_task(tried_tasks.gives_a_set)
    assert "JSON has no form" in run.error["message"]
    with pytest.raises(AssertionError, match="the task gives_a_set has failed"):
        assert run.result


def test_each_attempt_gets_the_arguments_as_they_were(run_task: TaskRunner) -> None:
    run = run_task(tried_tasks.changes_its_arguments, [[7]])
    assert (run.state, run.attempts, run.outputs) == ("failed", 2, [2, 2])
    assert [event["seq"] for event in run.events] == list(range(1, len(run.events) + 1))
    with pytest.raises(AssertionError) as caught:
        assert run.result
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize("name", ["spins", "sleeps", "waits_in_gevent", "stubborn"])
def test_a_limit_ends_what_blocks_the_thread_too(run_task: TaskRunner, name: str) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    began = time.monotonic()
    assert run_task(name).error["code"] == "timed_out"
    assert time.monotonic() - began < 15
    assert signal.getsignal(signal.SIGUSR2) is before
    assert [thread for thread in threading.enumerate() if thread.name == "time-limit"] == []


def test_a_thread_past_its_limit_is_reported_and_not_waited_for(run_task: TaskRunner) -> None:
    began = time.monotonic()
    assert run_task(tried_tasks.sleeps_in_thread, [3]).state == "timed_out"
    assert time.monotonic() - began < 3


def test_a_task_that_waits_for_too_long_fails_the_test(run_task: TaskRunner) -> None:
    with pytest.raises(AssertionError, match=r"sleeps_on has not ended within 0\.1 s"):
        run_task("sleeps_on=gevent:sleep", [60], timeout=0.1)


@pytest.mark.parametrize(("how", "error"), [("fail", pytest.fail.Exception), ("interrupt", KeyboardInterrupt)])
def test_what_is_meant_for_the_test_passes_through_the_task(run_task: TaskRunner, how: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        run_task(tried_tasks.fails_the_test, [how])


def test_children_of_the_test_are_not_reaped(run_task: TaskRunner) -> None:
    run_task("counts_in_process", [1])
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    with open(f"/proc/{child.pid}/stat") as stat:
        wait_until(lambda: stat.seek(0) == 0 and stat.read().rpartition(")")[2].split()[0] == "Z", message="it has not ended")
    assert run_task("sleeps_on=gevent:sleep", [0.05]).state == "succeeded"
    assert child.wait() == 7


def test_no_mail_leaves_the_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://mail.example.org")
    run_task: TaskRunner = request.getfixturevalue("run_task")
    assert run_task("send_mail", ["a@x.org", "b@y.org", "hi"]).result == {"sent": 1}
    assert len(list((tmp_path / "outbox" / "new").iterdir())) == 1


# On a server.


def test_connections_are_dropped_and_new_ones_taken(handoff_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "what no server would start with")
    server = handoff_server("--workers", "1")
    with WsClient(server.ws_url) as browser, TextClient(server.text_address) as caller:
        assert browser.ask({"ping": 1}) == caller.ask({"ping": 1}) == {"pong": 1}
        server.drop_connections()
        with pytest.raises((websocket.WebSocketException, OSError)):
            browser.receive()
        assert caller.receive_line() == b""
        assert server.gateway_pid()
    with WsClient(server.ws_url) as browser:
        assert browser.ask({"ping": 2}) == {"pong": 2}
    assert server.session.call("echo", {"text": "hi"}, timeout=20) == {"text": "hi"}


def test_the_process_that_is_named_is_killed_and_replaced(handoff_server: Start) -> None:
    server = handoff_server()
    first, second = server.worker_pids()
    assert server.kill_worker("worker-2") == second
    assert server.worker_pids()[0] == first
    gateway = server.gateway_pid()
    assert server.kill_gateway() == gateway != server.gateway_pid()
    with pytest.raises(AssertionError, match="no process is called 'worker-7'"):
        server.kill_worker("worker-7")
    assert server.call("echo", {"text": "hi"}) == {"text": "hi"}
    with pytest.raises(RemoteError, match="told to fail"):
        server.call("fail")


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(AssertionError, match="no_such_module"):
        HandoffServer("--tasks", "no_such_module")


def test_a_process_that_is_left_behind_fails_the_test() -> None:
    server = HandoffServer(*TASKS, "--workers", "1")
    pid = server.call("leaves_a_process")
    with pytest.raises(AssertionError, match=f"orphans: {pid} sleep 300"):
        server.clean()
    assert not os.path.exists(server.home)
