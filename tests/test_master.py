"""The master alone, with roles that do not always behave: what ends, what is replaced, and what never becomes a storm."""

import os
import pty
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.harness import ROOT, Process, Server, TextClient, wait_until

Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Process] = []

    def run(kind: str, count: int = 2, ready: bool = True) -> Process:
        process = Process([sys.executable, "-m", "tests.roles", kind, str(count)], env={"PYTHONPATH": str(ROOT)})
        started.append(process)
        if ready:
            wait_until(lambda: process.out() == "ready\n", message=process.log)
        return process

    yield run
    for process in started:
        process.clean()


def children(process: Process) -> set[int]:
    return process.tree() - {process.pid}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_everything(start: Start, number: int) -> None:
    process = start("idle")
    assert process.stop(number) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_does_not_end_when_told_is_killed_at_the_limit(start: Start, number: int) -> None:
    process = start("stubborn")
    began = time.monotonic()
    assert process.stop(number) == 0
    assert time.monotonic() - began >= 2
    assert "killed, because they did not end in time: worker-1, worker-2" in process.log()


def test_each_further_signal_is_faster(start: Start) -> None:
    process = start("stubborn")
    for said in ("stopping", "stopping", "signal SIGKILL"):
        before = process.log().count(said)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda said=said, before=before: process.log().count(said) > before, 1.5, process.log)  # type: ignore[misc]
    assert process.wait() == 0


def test_ctrl_c_in_a_terminal_reaches_the_master_alone(start: Start) -> None:
    process = start("idle")
    assert {os.getpgid(pid) for pid in process.tree()} == process.tree()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 0


def test_a_terminal_that_is_closed_ends_everything() -> None:
    """Its HUP is no order to load changed code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "tests.roles", "idle", "2"])
    said = b""
    while b"ready\r\n" not in said:
        said += os.read(terminal, 4096)
    workers = {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    assert len(workers) == 2
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_nothing_outlives_a_master_that_was_killed(start: Start) -> None:
    process = start("stubborn")
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: not process.tree(), 2.0)


def test_what_a_worker_started_ends_with_it(start: Start) -> None:
    process = start("parent", 1)
    worker = next(pid for pid in children(process) if os.getpgid(pid) == pid)
    wait_until(lambda: len(children(process)) == 2)
    offspring = children(process) - {worker}
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not offspring & process.tree(), 2.0)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0


def test_who_was_killed_is_replaced_under_the_same_name_at_once(start: Start) -> None:
    process = start("idle")
    before = children(process)
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: min(before) not in children(process) and len(children(process)) == 2, 5.0, process.log)
    assert "worker-1 (pid" in process.log()
    assert "signal SIGKILL" in process.log()


def test_who_ends_again_and_again_is_replaced_more_and_more_slowly(start: Start) -> None:
    process = start("short_lived", 1)
    wait_until(lambda: process.log().count("ended: exit code 1") >= 4, 10.0)
    time.sleep(2.0)  # not for something to happen, but to see how little happens
    assert process.log().count("ended: exit code 1") <= 10
    assert process.running()


@pytest.mark.parametrize(("kind", "code", "said"), [("not_booting", 3, "does not boot"), ("not_loading", 2, "no such module")])
def test_who_cannot_start_ends_the_run_with_the_reason_and_a_code_of_its_own(start: Start, kind: str, code: int, said: str) -> None:
    process = start(kind, ready=False)
    assert process.wait() == code
    assert said in process.log()
    assert "could not start, for the reason above" in process.log()
    assert process.log().count("ended:") <= 2
    assert process.out() == ""


def test_trouble_in_a_later_start_does_not_end_what_still_serves(start: Start) -> None:
    process = start("late_trouble", 1)
    os.kill(children(process).pop(), signal.SIGKILL)
    wait_until(lambda: process.log().count("worker-1 does not boot") >= 2, 10.0)
    assert process.running()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_everything(start: Start, number: int) -> None:
    process = start("slow", ready=False)
    wait_until(lambda: len(children(process)) == 2)
    assert process.stop(number) == 0
    assert process.out() == ""


def test_a_reload_replaces_everybody_and_those_who_wait_for_nobody_are_there_first(start: Start) -> None:
    process = start("relay", 1)
    before = children(process)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload-done" in process.log(), message=process.log)
    wait_until(lambda: len(children(process)) == 1 and not before & children(process), message=process.log)


def test_who_does_not_let_go_at_a_reload_is_killed(start: Start) -> None:
    process = start("stiff", 1)
    before = children(process)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload-done" in process.log(), message=process.log)
    assert "reload-forced: worker-1" in process.log()
    wait_until(lambda: len(children(process)) == 1 and not before & children(process), message=process.log)


@pytest.mark.parametrize(
    ("kind", "why"), [("slow_successor", "code is not loaded within 1 s"), ("late_trouble", "worker-1 could not start")]
)
def test_a_reload_that_comes_to_nothing_leaves_those_who_serve(start: Start, kind: str, why: str) -> None:
    process = start(kind, 1)
    before = children(process)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: f"reload-failed: {why}" in process.log(), message=process.log)
    wait_until(lambda: children(process) == before, message=process.describe)


def test_a_child_has_clean_signals_and_no_stdin(start: Start) -> None:
    process = start("idle", 1)
    worker = children(process).pop()
    with open(f"/proc/{worker}/status", encoding="ascii") as status:
        masks = {line.split(":")[0]: int(line.split()[1], 16) for line in status if line.startswith("Sig") and "Q" not in line[:5]}
    assert masks["SigBlk"] == 0
    assert masks["SigIgn"] & 1 << signal.SIGPIPE - 1
    assert not (masks["SigIgn"] | masks["SigCgt"]) & 1 << signal.SIGTERM - 1
    assert os.readlink(f"/proc/{worker}/fd/0") == os.devnull


def test_who_connects_while_it_stops_is_refused_and_does_not_wait(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server("--workers", "1", "--tasks", "tests.sample_tasks")
    with TextClient(server.text_address) as client:
        client.send({"id": "t1", "function": "gated", "args": {"gate": str(tmp_path / "gate")}})
        client.until(lambda message: message.get("event") == "started")
        server.send_signal(signal.SIGTERM)
        web = urlsplit(server.http_url)
        for port in ((web.hostname, web.port), server.text_address):
            wait_until(lambda port=port: refuses(port), message=server.log)  # type: ignore[misc]
        (tmp_path / "gate").touch()
        assert client.until(lambda message: message.get("event") != "progress")["event"] == "succeeded"


def refuses(port: Any) -> bool:
    try:
        socket.create_connection(port, 1).close()
    except ConnectionRefusedError:
        return True
    return False
