"""What killed a worker, or a process of a task's own, is told in the report: the signal or exit code, the memory, the stack."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import ends
from app.rundir import RunDirectory, lock
from tests.effects import check_story, effects, runs, said_of
from tests.harness import ROOT, Server, WsClient, wait_until
from tests.oddities import WAYS

FLAGS = ("--tasks", "tests.stubborn_tasks", "--workers", "1")
MIB = 1024 * 1024
GROUP = Path(f"/sys/fs/cgroup/memory/handoff-test-{os.getpid()}")


def end(client: WsClient, task_id: str, function: str, args: Any) -> Any:
    client.send({"id": task_id, "function": function, "args": args})
    final = client.final(task_id, 20)
    check_story(said_of(client.messages, task_id))
    return final


@pytest.mark.parametrize("way", WAYS)
def test_a_task_whose_process_dies_each_time_fails_and_says_of_what(server: Server, client: WsClient, way: str) -> None:
    final = end(client, f"poison-{way}", f"poisons_none_{way}", {"size": 120 * MIB})
    assert (final["event"], final["error"]["code"], final["attempt"]) == ("failed", "crashed", 2)
    assert final["error"]["killed_by"] == "signal SIGKILL"
    assert 120 < final["error"]["memory"] < 400, "in MiB"
    assert "out of memory" not in final["error"]["message"], "nothing says so"
    retrying = [event for event in client.messages if event.get("event") == "retrying" and event["id"] == f"poison-{way}"]
    assert [event["error"]["killed_by"] for event in retrying] == ["signal SIGKILL"]
    assert [effect.attempt for effect in effects(server, f"poison-{way}")] == [1, 2]
    assert runs(server)[f"poison-{way}"] == 2


def test_what_the_master_wrote_is_gone_once_it_was_told(server: Server, client: WsClient) -> None:
    assert end(client, "after", "neighbour", [0])["event"] == "succeeded"
    (pid,) = server.worker_pids()
    left = {path.name for path in (server.data_dir / "run").iterdir() if path.suffix in (".end", ".stack", ".over", ".new")}
    assert left == {f"worker-1-{pid}.stack", f"worker-1-{pid}.over"}


def test_without_a_master_nobody_is_waited_for_and_nothing_is_made_up(start_server: Callable[..., Server], tmp_path: Path) -> None:
    data = tmp_path / "data"
    worker = start_server("worker", "--tasks", "tests.stubborn_tasks", data_dir=data)
    gateway = start_server("gateway", data_dir=data)
    assert not RunDirectory(data / "run").has_master()
    with WsClient(gateway.ws_url) as client:
        client.send({"id": "a", "function": "neighbour", "args": [600]})
        client.until(lambda message: message["event"] == "started")
        began = time.monotonic()
        os.kill(worker.pid, 9)
        error = client.final("a")["error"]
        assert time.monotonic() - began < 5
    assert error["code"] == "interrupted"
    assert not {"killed_by", "memory", "stack"} & error.keys()
    assert worker.wait() == -9


def test_a_hang_that_ends_its_process_is_told_with_its_stack(start_server: Callable[..., Server]) -> None:
    server = start_server(*FLAGS, "--hang-limit", "1.2")
    with WsClient(server.ws_url) as client:
        error = end(client, "hang", "holds_none_greenlet", [600])["error"]
    assert (error["code"], error["killed_by"]) == ("interrupted", "exit code 1")
    assert "in holds" in error["stack"]


# The kernel's own judgement, where this machine lets us make a control group.


@pytest.fixture
def group() -> Iterator[tuple[str, ...]]:
    """One of 250 MiB, as the words before a command that is to be in it. Not this process: the kernel might choose it."""
    try:
        GROUP.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of memory can be made here: {error}")
    (GROUP / "memory.limit_in_bytes").write_text(str(250 * MIB))
    yield "sh", "-c", f'echo $$ > {GROUP}/cgroup.procs && exec "$@"', "sh"
    wait_until(lambda: not (GROUP / "cgroup.procs").read_text())
    GROUP.rmdir()


@pytest.mark.parametrize("way", ["greenlet", "process"])
def test_who_was_killed_for_want_of_memory_is_told_so(group: tuple[str, ...], way: str) -> None:
    server = Server(*FLAGS, under=group)
    with WsClient(server.ws_url) as client:
        error = end(client, "hungry", f"poisons_none_{way}", {"size": 1000 * MIB})["error"]
    assert (error["code"], error["killed_by"]) == ("crashed", "signal SIGKILL")
    assert "ended with signal SIGKILL, probably out of memory" in error["message"]
    server.clean()


# The files.


def test_a_master_is_seen_by_its_lock(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert not run.has_master()
    code = "import sys, time, pathlib, app.rundir as r; r.lock(pathlib.Path(sys.argv[1])); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert run.has_master()
        holder.kill()
    assert not run.has_master()
    os.close(lock(tmp_path))


def test_what_is_left_is_read_once_and_what_is_stale_is_removed(tmp_path: Path) -> None:
    ends.leave_word(tmp_path, "worker-1", 999_999_999, {"killed_by": "signal SIGKILL", "memory": 70, "out_of_memory": True})
    path = ends.end_path(tmp_path, "worker-1", 999_999_999)
    assert path.stat().st_mode & 0o777 == 0o600
    found = ends.remains(tmp_path, "worker-1", 999_999_999)
    assert (found.how, found.details) == (
        "ended with signal SIGKILL, probably out of memory",
        {"killed_by": "signal SIGKILL", "memory": 70},
    )
    assert ends.remains(tmp_path, "worker-1", 999_999_999) == ends.Remains()
    for name, age in (("worker-1-999999999.end", 100), ("worker-2-999999998.over", 100), ("worker-3-999999997.stack", 0)):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    (tmp_path / f"worker-4-{os.getpid()}.stack").write_text("still here")
    os.utime(tmp_path / f"worker-4-{os.getpid()}.stack", (0, 0))
    ends.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["worker-3-999999997.stack", f"worker-4-{os.getpid()}.stack"]


@pytest.mark.parametrize(("status", "words"), [(-9, "signal SIGKILL"), (3, "exit code 3"), (-40, "signal 40")])
def test_how_a_process_ended_in_words(status: int, words: str) -> None:
    assert ends.killed_by(status) == words
    assert re.fullmatch(r"signal \d+ \(the hard limit of a task\)", ends.killed_by(-ends.LAST_SIGNAL))
