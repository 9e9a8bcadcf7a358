"""The commands for people and scripts, against a real server: what stands on stdout, and the exit status."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.address import Address
from app.commands.group import main
from app.commands.tasks import age
from app.errors import SettingsError
from app.remote import Session
from tests.harness import ROOT, Process, Server, wait_until
from tests.proxy import Proxy

FLAGS = ("--tasks", "tests.sample_tasks,tests.worker_tasks,tests.command_tasks")


class Done(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """The JSON values on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, with the server's addresses in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HANDOFF_WS", server.ws_url.split("/")[2])
    monkeypatch.setenv("HANDOFF_TEXT", str(Address(*server.text_address)))

    def one(*argv: str) -> Done:
        capsys.readouterr()
        status = main(argv)
        return Done(status, *capsys.readouterr())

    return one


@pytest.fixture
def started(server: Server) -> Iterator[Callable[..., Process]]:
    """Starts the command line as a process of its own."""
    processes: list[Process] = []

    def start(*argv: str, ws: str = "") -> Process:
        environment = {"HANDOFF_WS": ws or server.ws_url.split("/")[2], "HANDOFF_TEXT": str(Address(*server.text_address))}
        processes.append(Process([sys.executable, str(ROOT / "run.py"), *argv], environment))
        return processes[-1]

    yield start
    for process in processes:
        process.clean()


# call.


def test_the_result_is_one_json_line(run: Run) -> None:
    assert run("call", "echo", "n=1", "text=مرحبا", 'quoted="3"', "zip=01234", "none=null", "list=[1,{}]") == Done(
        0, '{"n":1,"text":"مرحبا","quoted":"3","zip":"01234","none":null,"list":[1,{}]}\n', ""
    )


@pytest.mark.parametrize("way", [(), ("--direct",)])
def test_values_of_a_generator_are_lines_and_its_empty_result_is_not(run: Run, way: tuple[str, ...]) -> None:
    assert run("call", *way, "countdown", "start=2", "interval=0") == Done(0, "2\n1\n0\n", "")
    assert run("call", *way, "sleep", "--args", "[0]") == Done(0, "0\n", "")


@pytest.mark.parametrize("way", [(), ("--direct",)])
@pytest.mark.parametrize(
    ("function", "args", "status", "code"),
    [
        ("fail", ["message=oh no"], 10, "failed"),
        ("naps_limited_greenlet", ["seconds=60"], 11, "timed_out"),
        ("no_such_function", [], 14, "unknown_function"),
    ],
)
def test_the_exit_status_says_how_it_ended(run: Run, way: tuple[str, ...], function: str, args: list[str], status: int, code: str) -> None:
    plain = run("call", *way, function, *args)
    assert (plain.status, plain.out) == (status, "")
    assert plain.err.startswith(f"handoff: {code}: ")
    assert plain.err.count("\n") == 1
    scripted = run("call", *way, "--json", function, *args)
    assert (scripted.status, scripted.err) == (status, "")
    assert scripted.lines[-1]["error"]["code"] == code


def test_the_status_of_a_task_whose_worker_died(run: Run) -> None:
    assert run("call", "dies", "how=kill").status == 13


def test_nobody_there_is_unavailable(run: Run) -> None:
    for argv in (
        ["call", "echo", "--ws", "127.0.0.1:1"],
        ["call", "--direct", "echo", "--text", "127.0.0.1:1"],
        ["tasks", "--ws=127.0.0.1:1"],
    ):
        done = run(*argv)
        assert (done.status, done.out) == (15, "")
        assert done.err.startswith("handoff: unavailable: nobody answers at ")
    scripted = run("call", "--json", "echo", "--ws", "127.0.0.1:1")
    assert (scripted.status, scripted.lines[0]["error"]["code"]) == (15, "unavailable")


def test_json_is_the_wire_line_by_line(run: Run) -> None:
    done = run("call", "--json", "--id", "json-1", "countdown", "start=1", "interval=0")
    assert [(line["id"], line["event"], line["seq"]) for line in done.lines] == [
        ("json-1", name, number) for number, name in enumerate(("accepted", "started", "output", "output", "succeeded"), 1)
    ]


def test_with_the_same_id_it_never_runs_twice(run: Run, server: Server) -> None:
    first = run("call", "--id", "once", "mark", "note=x")
    assert first.status == 0
    assert run("call", "--id", "once", "mark", "note=x") == first
    other = run("call", "--id", "once", "mark", "note=y")
    assert (other.status, other.err.split(":")[1]) == (14, " id_conflict")


def test_detach_says_the_id_once_it_is_accepted(run: Run) -> None:
    detached = run("call", "--detach", "sleep", "seconds=0.2")
    task_id = detached.out.strip()
    assert detached.status == 0
    assert run("call", "--id", task_id, "sleep", "seconds=0.2").out == "0.2\n"
    assert run("call", "--detach", "--json", "echo").lines[0]["event"] == "accepted"
    assert run("call", "--detach", "no_such").status == 14


def test_arguments_may_come_from_stdin_and_from_both_forms(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 1, "b": 2}'))
    assert run("call", "echo", "--args", "-", "b=3").lines == [{"a": 1, "b": 3}]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["call"], "Missing argument 'FUNCTION'"),
        (["call", "echo", "x"], "'x' is no argument; write NAME=VALUE"),
        (["call", "echo", "n=1", "n=2"], "a NAME is given twice"),
        (["tasks", "no id"], "ID wants 1 to 64 characters"),
        (["call", "echo", "=x"], "write NAME=VALUE"),
        (["call", "echo", "--args", "{"], "--args: bad JSON"),
        (["call", "echo", "--args", "3"], "--args wants an object"),
        (["call", "echo", "--args", "[]", "a=1"], "--args with an array goes with no NAME=VALUE"),
        (["call", "echo", "--id", "a b"], "--id wants 1 to 64 characters"),
        (["call", "echo", "--direct", "--detach"], "--direct goes with none of"),
        (["call", "echo", "--speed", "9"], "No such option"),
        (["call", "echo", "--ws", "nowhere"], "--ws: 'nowhere' is not an address"),
        (["call", "echo", "--ws", "127.0.0.1:0"], "--ws: port 0 names no server"),
        (["tasks", "--state", "happy"], "'happy' is not one of"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_one_clear_line(run: Run, argv: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        run(*argv)
    assert said in refused.value.message


def test_nothing_from_outside_is_obeyed_by_a_terminal(run: Run) -> None:
    evil = "\x1b[2J\x9b31m\u202eabc"
    done = run("call", "echo", f"text={evil}")
    assert done.lines == [{"text": evil}]
    assert done.out.strip().isprintable()
    failed = run("call", "fail", f"message={evil}")
    assert failed.err.rstrip("\n").isprintable()


# As processes: signals, a network that breaks, pipes, and the way through run.py.


def test_ctrl_c_cancels_and_waits_for_the_end(started: Callable[..., Process]) -> None:
    process = started("call", "--json", "sleep", "seconds=60")
    wait_until(lambda: '"started"' in process.out())
    assert process.stop(2) == 12
    assert json.loads(process.out().splitlines()[-1])["event"] == "cancelled"


def test_direct_ctrl_c_cancels_too(started: Callable[..., Process]) -> None:
    process = started("call", "--json", "--direct", "sleep", "seconds=60")
    wait_until(lambda: '"started"' in process.out())
    assert process.stop(2) == 12


def test_a_second_ctrl_c_leaves_and_says_how_to_look_again(server: Server, started: Callable[..., Process]) -> None:
    with Proxy() as proxy:
        host, port = server.ws_url.split("/")[2].split(":")
        proxy.target = (host, int(port))
        process = started("call", "--json", "--id", "left", "sleep", "seconds=0.5", ws=f"127.0.0.1:{proxy.port}")
        wait_until(lambda: '"started"' in process.out())
        proxy.cut()
        wait_until(lambda: proxy.refused > 0)

        process.send_signal(2)
        wait_until(lambda: "cancelling" in process.log())
        process.send_signal(2)
        assert process.wait() == 130
        assert "run.py tasks left" in process.log()


def test_a_line_that_is_cut_is_not_the_end_of_a_call(server: Server, started: Callable[..., Process]) -> None:
    with Proxy() as proxy:
        host, port = server.ws_url.split("/")[2].split(":")
        proxy.target = (host, int(port))
        process = started("--ws", f"127.0.0.1:{proxy.port}", "call", "countdown", "start=20", "interval=0.02")
        wait_until(lambda: process.out().count("\n") >= 5)
        proxy.cut()
        wait_until(lambda: proxy.refused > 0)
        proxy.mend()
        assert process.wait() == 0
        assert process.out().split() == [str(number) for number in range(20, -1, -1)]


def test_a_gateway_that_stays_away_is_given_up(server: Server, started: Callable[..., Process]) -> None:
    with Proxy() as proxy:
        host, port = server.ws_url.split("/")[2].split(":")
        proxy.target = (host, int(port))
        process = started("call", "--json", "--give-up", "0.2", "sleep", "seconds=0.5", ws=f"127.0.0.1:{proxy.port}")
        wait_until(lambda: '"started"' in process.out())
        proxy.cut()
        assert process.wait() == 15
        assert json.loads(process.out().splitlines()[-1])["error"]["code"] == "unavailable"


def test_a_reader_that_has_gone_ends_it_quietly(server: Server) -> None:
    command = f"{sys.executable} {ROOT}/run.py call --ws {server.ws_url.split('/')[2]} flow count=200 width=2000 | head -c 10"
    ran = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_output_that_cannot_be_written_ends_it_in_one_line(server: Server) -> None:
    environ = {**os.environ, "HANDOFF_WS": server.ws_url.split("/")[2]}
    for command in (["call", "echo", "n=1"], ["functions"]):
        with open("/dev/full", "w") as full:
            argv = [sys.executable, str(ROOT / "run.py"), *command]
            ran = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, env=environ, check=False)
        assert (ran.returncode, ran.stderr) == (1, "handoff: the output cannot be written: No space left on device\n")


def test_a_terminal_without_utf_8_is_sent_json_in_ascii(server: Server) -> None:
    environ = {**os.environ, "HANDOFF_WS": server.ws_url.split("/")[2], "PYTHONIOENCODING": "latin-1"}
    argv = [sys.executable, str(ROOT / "run.py"), "call", "echo", "text=é😀ب"]
    ran = subprocess.run(argv, capture_output=True, timeout=30, env=environ, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.isascii()
    assert json.loads(ran.stdout) == {"text": "é😀ب"}


def test_run_py_says_what_is_wrong_in_one_line(started: Callable[..., Process]) -> None:
    process = started("call", "echo", "--speed", "9")
    assert process.wait() == 2
    assert process.log().startswith("handoff: No such option")
    assert process.log().count("\n") == 1


# tasks and functions.


def test_tasks_lists_ones_own_newest_first_with_progress_and_filters(run: Run, server: Server, gate: Path) -> None:
    with Session(server.ws_url) as session:
        task = session.submit("stops_half_way", {"gate": str(gate)}, id="far")
        wait_until(lambda: task.done is not None)
        run("call", "--id", "near", "fail")
        listed = run("tasks", "--json").lines
        assert [entry["id"] for entry in listed[:2]] == ["near", "far"]
        (entry,) = run("tasks", "--json", "--state", "running", "--function", "stops_half_way").lines
        assert (entry["id"], entry["done"], entry["total"]) == ("far", 3, 10)
        assert run("tasks", "--state", "failed", "--function", "stops_half_way") == Done(0, "", "")
        (row,) = run("tasks", "--limit", "2", "--function", "stops_half_way").out.splitlines()
        assert row.split("\t")[:4] == ["far", "stops_half_way", "running", "3/10 half"]
        (row,) = run("tasks", "--limit", "1", "--state", "running", "--state", "queued").out.splitlines()
        assert row.startswith("far\t"), "what is newer and is not asked for is no part of the limit"
        both = run("tasks", "--function", "fail", "--function", "stops_half_way", "--limit", "2").out.splitlines()
        assert [row.split("\t")[0] for row in both] == ["near", "far"]
        told = run("tasks", "far")
        assert (told.status, [line.split("\t")[1] for line in told.out.splitlines()]) == (0, ["accepted", "started", "progress"])


def test_tasks_of_an_id_shows_its_events_and_follow_ends_as_the_task(run: Run) -> None:
    run("call", "--id", "bad", "fail")
    assert [line["event"] for line in run("tasks", "bad", "--json").lines] == ["accepted", "started", "failed"]
    assert run("tasks", "bad").status == 0
    assert run("tasks", "bad", "--follow").status == 10
    unknown = run("tasks", "nobody")
    assert (unknown.status, unknown.out, unknown.err.split(":")[1]) == (14, "", " unknown_task")


def test_follow_shows_what_changes_until_ctrl_c(run: Run, started: Callable[..., Process]) -> None:
    process = started("tasks", "--json", "--follow")
    run("call", "--id", "seen", "echo")
    wait_until(lambda: any(json.loads(line)["id"] == "seen" for line in process.out().splitlines()))
    assert process.stop(2) == 0


@pytest.mark.parametrize(("seconds", "said"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (200_000, "2d")])
def test_an_age_is_said_in_the_largest_unit_that_is_full(seconds: float, said: str) -> None:
    assert age(seconds) == said


def test_functions_lists_the_catalogue(run: Run) -> None:
    rows = [line.split("\t") for line in run("functions").out.splitlines()]
    assert ["countdown", "start:int interval:float=0.1", "Say each number from `start` down to 0, `interval` seconds apart."] in rows
    (entry,) = run("functions", "echo", "--json").lines
    assert entry["name"] == "echo"
    missing = run("functions", "echo", "no_such")
    assert (missing.status, missing.err) == (14, "handoff: no function 'no_such' here\n")


def test_the_help_of_each_command_has_examples_and_says_where_the_server_is_looked_for(run: Run) -> None:
    for command in ("call", "tasks", "functions"):
        text = run(command, "--help").out
        assert "Examples:" in text
        assert f"run.py {command}" in text
        assert "HANDOFF_WS" in text
    assert "130 left" in run("call", "--help").out
