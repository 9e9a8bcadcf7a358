"""`status` and `connections` against real servers in every state, and against none."""

import json
import os
import re
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import websocket

from app.commands.group import main
from tests.effects import open_gate
from tests.harness import Server, TextClient, WsClient, wait_until

FLAGS = ("--tasks", "tests.sample_tasks")
SECRET = "correct-horse-battery"
Start = Callable[..., Server]


def own_address(client: WsClient) -> str:
    """Where the gateway sees it."""
    sock = client.socket.sock
    assert sock is not None
    return "{}:{}".format(*sock.getsockname())


class Run:
    """Runs one of the two commands in this process: its exit status, and what stands on stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, data_dir: Path, *argv: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = main([*argv, "--data-dir", str(data_dir)])
        return status, *self._capsys.readouterr()

    def processes(self, data_dir: Path) -> dict[str, Any]:
        """Those of `status --json`, by name."""
        status, out, _ = self(data_dir, "status", "--json")
        assert status == 0
        return {process["name"]: process for process in json.loads(out)["processes"]}

    def connections(self, data_dir: Path) -> list[Any]:
        """Those of `connections --json`."""
        status, out, err = self(data_dir, "connections", "--json")
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


def test_where_nothing_runs_that_is_said(run: Run, tmp_path: Path) -> None:
    for command in ("status", "connections"):
        status, out, err = run(tmp_path / "never", command)
        assert (status, out) == (15, "")
        assert err == f"handoff: unavailable: nothing runs with --data-dir {tmp_path / 'never'}\n"
    assert not (tmp_path / "never").exists(), "to look changes nothing"


def test_what_has_ended_is_not_there_any_more(run: Run, start_server: Start, tmp_path: Path) -> None:
    server = start_server(data_dir=tmp_path)
    assert run(tmp_path, "status")[0] == 0
    server.kill()
    assert run(tmp_path, "status")[0] == 15
    assert run(tmp_path, "connections")[0] == 15


def test_status_shows_each_process_and_what_it_runs(run: Run, server: Server, client: WsClient, gate: Path) -> None:
    client.send({"id": "held", "function": "gated", "args": [str(gate), SECRET]})
    client.until(lambda message: message.get("event") == "started")
    with TextClient(server.text_address) as direct:
        direct.send({"function": "gated", "args": [str(gate), SECRET]})

        def shown() -> dict[str, Any]:
            return {name: process for name, process in run.processes(server.data_dir).items() if process["running"]}

        wait_until(lambda: sum(process["busy"] for process in shown().values()) == 2)
        running = [(one["function"], one["id"]) for process in shown().values() for one in process["running"]]
        assert sorted(running) == [("gated", ""), ("gated", "held")]
        processes = run.processes(server.data_dir)
        assert list(processes) == ["master", "gateway", "worker-1", "worker-2"]
        assert [processes[name]["pid"] for name in ("worker-1", "worker-2")] == server.worker_pids()
        assert processes["gateway"]["pid"] == server.gateway_pid()
        assert processes["gateway"]["address"] == server.ws_url.split("/")[2]
        assert processes["worker-1"]["address"] == "{}:{}".format(*server.text_address)
        assert all(process["memory"] > 5e6 for process in processes.values())
        wait_until(lambda: run.processes(server.data_dir)["gateway"]["gauges"]["running"] == 1)
        for argv in (["status"], ["status", "--json"], ["connections"], ["connections", "--json"]):
            assert SECRET not in run(server.data_dir, *argv)[1], "no arguments"
        open_gate(gate)
        client.final("held")
        direct.receive()
    wait_until(lambda: not shown())
    assert {process["state"] for process in run.processes(server.data_dir).values()} <= {"idle", "busy"}


def test_status_for_people_has_a_head_and_a_row_a_process(run: Run, server: Server, client: WsClient) -> None:
    client.send({"id": "seen", "function": "mark", "events": "final"})
    client.final("seen")

    def lines() -> list[str]:
        return run(server.data_dir, "status")[1].splitlines()

    wait_until(lambda: any("succeeded" in line for line in lines()))
    head, rows = lines()[:6], [line.split("\t") for line in lines()[6:]]
    assert [line.split()[0] for line in head] == ["version", "started", "load", "tasks", "retried", "respawns"]
    assert [row[2] for row in rows] == ["master", "gateway", "worker-1", "worker-2"]
    assert {len(row) for row in rows} == {9}
    assert re.fullmatch(r"\d+ wait, \d+ at 2 workers", rows[1][8])


def test_who_was_stopped_by_a_signal_is_not_said_to_be_idle(run: Run, start_server: Start) -> None:
    """The master, which has no beat that could be late, too."""
    server = start_server("--workers", "1")
    victims = {"master": server.pid, "worker-1": server.worker_pids()[0]}
    for pid in victims.values():
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _stopped(run, server) == set(victims))
    finally:
        for pid in victims.values():
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not _stopped(run, server))


def _stopped(run: Run, server: Server) -> set[str]:
    return {name for name, one in run.processes(server.data_dir).items() if one["state"] == "stopped"}


def test_a_process_that_is_stuck_is_said_to_be_blocked_with_what_it_ran(run: Run, start_server: Start) -> None:
    server = start_server(*FLAGS, "--workers", "1")
    with WsClient(server.ws_url) as client:
        client.send({"id": "spinning", "function": "spin", "args": [4]})
        client.until(lambda message: message.get("event") == "started")
        stuck = wait_until(lambda: (one := run.processes(server.data_dir)["worker-1"])["state"] == "blocked" and one)
        assert stuck["silent"] >= 1
        status, _, err = run(server.data_dir, "connections", "--json")
        assert status in (0, 1)
        assert status == 0 or "worker-1" in err
        client.final("spinning", 20)
    wait_until(lambda: run.processes(server.data_dir)["worker-1"]["state"] == "idle")


def test_a_stopped_process_hides_nobody_elses_connections(run: Run, start_server: Start) -> None:
    server = start_server()
    victim = server.worker_pids()[0]
    os.kill(victim, signal.SIGSTOP)
    with WsClient(server.ws_url):
        status, out, err = run(server.data_dir, "connections", "--json")
    os.kill(victim, signal.SIGCONT)
    assert status == 1
    assert err.startswith(f"handoff: worker-1 (pid {victim}): does not tell its connections")
    assert "websocket" in {json.loads(line)["protocol"] for line in out.splitlines()}


def test_connections_have_their_ends_and_their_bytes(run: Run, server: Server) -> None:
    with WsClient(server.ws_url) as client, TextClient(server.text_address) as direct:
        local = own_address(client)
        client.ask({"ping": "x" * 5000})
        direct.ask({"function": "echo", "args": {"text": "y" * 3000}})

        def of(remote: str) -> Any:
            return next((one for one in run.connections(server.data_dir) if one["remote"] == remote), None)

        browser = wait_until(lambda: of(local))
        assert (browser["process"], browser["protocol"], browser["transport"]) == ("gateway", "websocket", "tcp")
        assert browser["local"] == server.ws_url.split("/")[2]
        assert browser["state"] == "ESTABLISHED"
        assert 5000 < browser["received"] < 7000
        wait_until(lambda: 5000 < of(local)["sent"] < 7000)  # what is acknowledged
        text = of("{}:{}".format(*direct.socket.getsockname()))
        assert text["process"] in ("worker-1", "worker-2")
        assert (text["protocol"], text["pid"]) == ("text", run.processes(server.data_dir)[text["process"]]["pid"])
        assert text["received"] > 3000
    wait_until(lambda: of(local) is None)
    rows = [line.split("\t") for line in run(server.data_dir, "connections")[1].splitlines()]
    assert {len(row) for row in rows} == {12}
    kept = sorted((row[1], row[2], row[4]) for row in rows if row[3] == "unix")
    assert kept[:2] == [("gateway", "worker-1", "worker"), ("gateway", "worker-2", "worker")]
    assert kept[2:] == [("worker-1", "-", "text"), ("worker-2", "-", "text")]


def test_what_a_slow_reader_leaves_is_seen(run: Run, server: Server) -> None:
    with WsClient(server.ws_url) as client:
        local = own_address(client)
        client.socket.settimeout(0.3)
        with suppress(websocket.WebSocketTimeoutException):  # who is not read from any more sees it so
            for _ in range(300):
                client.send({"ping": "x" * 60_000})

        def waiting() -> int:
            found = [one for one in run.connections(server.data_dir) if one["remote"] == local]
            return int(found[0]["send_queue"] + found[0]["unsent"]) if found else 0

        wait_until(lambda: waiting() > 100_000)


def test_many_connections_are_listed_whole(run: Run, server: Server) -> None:
    clients = [WsClient(server.ws_url) for _ in range(120)]
    wait_until(lambda: sum(one["protocol"] == "websocket" for one in run.connections(server.data_dir)) == 120)
    for client in clients:
        client.close()


def test_nobody_else_can_ask(server: Server) -> None:
    sockets = list((server.data_dir / "run").glob("control-*.sock"))
    assert len(sockets) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
    assert stat.S_IMODE((server.data_dir / "run").stat().st_mode) == 0o700


def test_nothing_is_left_behind_by_processes_that_were_killed(start_server: Start, run: Run) -> None:
    server = start_server(*FLAGS)
    for _ in range(2):
        victims = server.worker_pids()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not set(victims) & server.tree() and len(server.worker_pids()) == 2)  # noqa: B023
        wait_until(lambda: "worker-2" in run.processes(server.data_dir) and "worker-1" in run.processes(server.data_dir))
    assert len(list((server.data_dir / "run").glob("control-*.sock"))) == 3
    assert (server.data_dir / "run" / "scoreboard").stat().st_size <= 6 * 64 * 1024


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
