"""What a task leaves behind, holds on to or takes along does no harm to others, and is told."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import ROOT, Server, TextClient, WsClient, wait_until

Start = Callable[..., Server]
RUDE = ("--tasks", "tests.rude_tasks")
ENV = {"PYTHONPATH": str(ROOT)}


def test_a_timer_that_a_task_left_does_not_reach_the_next(start_server: Start) -> None:
    server = start_server("worker", *RUDE, env=ENV)
    with TextClient(server.text_address) as client:
        for _ in range(5):
            assert client.ask({"function": "leave_a_timer", "args": [0.1]}) == 1
            assert client.ask({"function": "nap", "args": [0.2]}) == 0.2


def test_the_end_of_a_process_is_seen_though_its_own_child_lives_on(start_server: Start) -> None:
    server = start_server("--workers", "1", *RUDE, "--process-slots", "1", env=ENV)  # the master ends what a worker left
    with TextClient(server.text_address) as client:
        error = client.ask({"function": "fork_and_leave", "args": [30]})["error"]
        assert error["code"] == "interrupted"
        assert error["killed_by"] == "exit code 3"
        assert client.ask({"function": "primes", "args": [100]}) == 25  # its slot is free again


def test_a_task_that_holds_the_hub_past_the_limit_is_ended_with_its_process_and_its_stack_is_told(start_server: Start) -> None:
    server = start_server("--workers", "1", "--hang-limit", "2", *RUDE, env=ENV)
    with WsClient(server.ws_url) as browser:
        browser.send({"id": "s", "function": "spin"})
        final = browser.final("s", 15)
        assert final["event"] == "interrupted"
        assert "in spin" in final["error"]["stack"]
        browser.send({"id": "e", "function": "echo", "args": {"n": 1}})
        assert browser.final("e", 15)["result"] == {"n": 1}
    assert "hub-blocked: spin" in server.log()


def test_a_task_that_changes_the_directory_does_not_take_ours_along(start_server: Start, tmp_path: Path) -> None:
    server = start_server("worker", *RUDE, env=ENV)
    with TextClient(server.text_address) as client:
        assert client.ask({"function": "change_directory"}) == "/"
        mail = {"from": "a@x.org", "to": "b@y.org", "contents": "hi"}
        assert client.ask({"function": "send_mail", "args": mail}) == {"sent": 1}
    assert len(list((server.data_dir / "outbox" / "new").iterdir())) == 1
    assert server.stop() == 0


def test_term_waits_for_what_runs_and_not_for_what_waits(start_server: Start) -> None:
    server = start_server("--workers", "1", "--concurrency", "2", "--graceful", "30", *RUDE, env=ENV)
    with WsClient(server.ws_url) as browser:
        browser.send({"id": "later", "function": "echo", "delay": 3600})
        for number in range(20):
            browser.send({"id": f"n{number}", "function": "nap", "args": [1.0]})
        browser.until(lambda message: message.get("event") == "started")
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert browser.until(lambda message: message.get("event") == "succeeded")["result"] == 1.0
    server.wait()
    assert time.monotonic() - begun < 15


def test_a_second_one_with_the_same_data_directory_is_refused(start_server: Start, tmp_path: Path) -> None:
    first = start_server(data_dir=tmp_path / "data")
    with pytest.raises(AssertionError, match="another one runs with"):
        start_server(data_dir=tmp_path / "data")
    first.send_signal(signal.SIGKILL)
    wait_until(lambda: not first.tree(), 5)
    second = start_server(data_dir=tmp_path / "data")  # the lock ends with its process
    with TextClient(second.text_address) as client:
        assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
