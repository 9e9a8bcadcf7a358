"""The command line and the whole tree: one command brings it up, a signal ends it, and what cannot be started says why in one line."""

import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, Process, Server, TextClient, WsClient, wait_until

Start = Callable[..., Server]
Run = Callable[..., Process]


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs the command line with these flags, and does not wait until it is ready."""
    started: list[Process] = []

    def start(*flags: str, env: dict[str, str] | None = None) -> Process:
        started.append(Process([sys.executable, str(ROOT / "run.py"), *flags], env))
        return started[-1]

    yield start
    for process in started:
        process.clean()


def echo(server: Server, text: str = "hello") -> None:
    """Both ways in lead to a worker."""
    with TextClient(server.text_address) as client:
        assert client.ask({"function": "echo", "args": {"text": text}}) == {"text": text}
    with WsClient(server.ws_url) as browser:
        browser.send({"id": "t1", "function": "echo", "args": {"text": text}})
        assert browser.final("t1")["result"] == {"text": text}


def test_one_command_brings_up_everything_and_says_where(server: Server) -> None:
    lines = r"gateway listening on ws://127\.0\.0\.1:(\d+)/ws\nworkers listening on text://127\.0\.0\.1:\d+\npage at http://127\.0\.0\.1:\1/\nready\n"
    assert re.fullmatch(lines, server.out())
    assert len(server.worker_pids()) == 2
    assert server.gateway_pid() in server.tree()
    echo(server, "مرحبا 🚀")


def test_it_is_ready_soon(start_server: Start) -> None:
    start_server()  # what is imported for the first time ever is compiled first
    began = time.monotonic()
    start_server()
    assert time.monotonic() - began < 4, "under 2 s on a machine that does nothing else"


def test_directories_are_for_the_owner_alone(server: Server) -> None:
    assert [stat.S_IMODE(path.stat().st_mode) for path in (server.data_dir, server.data_dir / "run")] == [0o700, 0o700]


def test_a_process_holds_the_listener_of_its_own_role_alone(server: Server) -> None:
    inodes = {"ws": inode(server.ws_url), "text": inode(f"text://127.0.0.1:{server.text_address[1]}/")}
    assert held(server.gateway_pid(), inodes) == {"ws"}
    assert [held(pid, inodes) for pid in server.worker_pids()] == [{"text"}, {"text"}]


def inode(url: str) -> str:
    """The socket that listens there, as /proc names it."""
    found = re.search(r":(\d+)/", url)
    assert found
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return next(f"socket:[{row[9]}]" for row in rows if row[1] == f"0100007F:{int(found.group(1)):04X}" and row[3] == "0A")


def held(pid: int, inodes: dict[str, str]) -> set[str]:
    links = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    return {name for name, link in inodes.items() if link in links}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_the_whole_tree(start_server: Start, number: int) -> None:
    server = start_server()
    echo(server)
    began = time.monotonic()
    assert server.stop(number) == 0
    assert time.monotonic() - began < 5
    assert "Traceback" not in server.log()
    assert "did not end in time" not in server.log()


def test_there_is_nothing_to_warn_of(start_server: Start) -> None:
    server = start_server(env={"PYTHONWARNINGS": "error"})
    echo(server)
    assert server.stop() == 0
    assert "Warning:" not in server.log()


def test_idle_connections_do_not_hold_a_stop_up(start_server: Start) -> None:
    server = start_server()
    with TextClient(server.text_address), WsClient(server.ws_url):
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5


def test_a_task_that_runs_when_told_to_end_is_waited_for(start_server: Start) -> None:
    server = start_server()
    with TextClient(server.text_address) as client:
        client.send({"id": "t1", "function": "sleep", "args": {"seconds": 1.0}})
        client.until(lambda message: message.get("event") == "started")
        server.send_signal(signal.SIGTERM)
        assert client.until(lambda message: message.get("event") != "progress")["event"] == "succeeded"
    assert server.wait() == 0


def test_the_wait_has_a_limit(start_server: Start) -> None:
    server = start_server("--graceful", "0.5")
    with TextClient(server.text_address) as client:
        client.send({"id": "t1", "function": "sleep", "args": {"seconds": 60}})
        client.until(lambda message: message.get("event") == "started")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 6


def test_a_second_signal_does_not_wait(start_server: Start) -> None:
    server = start_server("--graceful", "60")
    with TextClient(server.text_address) as client:
        client.send({"id": "t1", "function": "sleep", "args": {"seconds": 60}})
        client.until(lambda message: message.get("event") == "started")
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in server.log())
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 6


def test_nothing_outlives_a_master_that_was_killed_task_processes_included(start_server: Start) -> None:
    server = start_server("--workers", "1")
    with TextClient(server.text_address) as client:
        client.send({"id": "t1", "function": "primes", "args": {"below": 100_000_000}})
        client.until(lambda message: message.get("event") == "started")
        wait_until(lambda: len(server.tree()) >= 4, message="a process of its own for the task")
        server.send_signal(signal.SIGKILL)
        wait_until(lambda: not server.tree(), 2.0, server.describe)


def test_a_task_process_does_not_outlive_its_worker(start_server: Start) -> None:
    server = start_server("--workers", "1")
    with TextClient(server.text_address) as client:
        client.send({"id": "t1", "function": "primes", "args": {"below": 100_000_000}})
        client.until(lambda message: message.get("event") == "started")
        own = wait_until(lambda: server.tree() - {server.pid, server.gateway_pid(), *server.worker_pids()})
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: not own & server.tree(), 2.0, server.describe)


def test_a_worker_that_was_killed_is_replaced_at_once(start_server: Start) -> None:
    server = start_server()
    killed = server.worker_pids()[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(server.worker_pids()) == 2 and killed not in server.worker_pids(), 5.0, server.log)
    for _ in range(4):
        echo(server)


def test_a_gateway_that_was_killed_is_replaced_at_the_same_address(start_server: Start) -> None:
    server = start_server()
    killed = server.gateway_pid()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: server.gateway_pid() != killed, 5.0, server.log)
    echo(server)


def test_roles_run_one_by_one_and_find_each_other_in_the_data_directory(start_server: Start, tmp_path: Path) -> None:
    workers = [start_server("worker", data_dir=tmp_path / "data") for _ in range(2)]
    gateway = start_server("gateway", data_dir=tmp_path / "data")
    assert re.fullmatch(r"workers listening on \S+\nready\n", workers[0].out())
    assert re.fullmatch(r"gateway listening on \S+\npage at \S+\nready\n", gateway.out())
    with WsClient(gateway.ws_url) as browser:
        browser.send({"id": "t1", "function": "echo", "args": {"n": 1}})
        assert browser.final("t1")["result"] == {"n": 1}
    assert [process.stop() for process in (gateway, *workers)] == [0, 0, 0]


def test_with_a_pool_there_are_no_local_workers(start_server: Start) -> None:
    worker = start_server("worker")
    server = start_server("--pool", "{}:{}".format(*worker.text_address))
    assert "workers listening" not in server.out()
    assert server.worker_pids() == []
    with WsClient(server.ws_url) as browser:
        browser.send({"id": "t1", "function": "echo", "args": {"n": 1}})
        assert browser.final("t1")["result"] == {"n": 1}


def test_workers_may_listen_on_a_unix_socket_also_where_a_dead_one_is_left(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "text.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    server = start_server("--text", f"unix:{path}")
    assert f"workers listening on unix:{path}\n" in server.out()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with TextClient(str(path)) as client:
        assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
    assert server.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("flag", ["--ws", "--text"])
def test_an_address_that_is_taken_ends_the_start_with_one_line(run: Run, server: Server, flag: str) -> None:
    taken = "{}:{}".format(*server.text_address)
    other = "--text" if flag == "--ws" else "--ws"
    process = run(flag, taken, other, "127.0.0.1:0")
    assert process.wait() == 2
    assert last_line(process) == f"handoff: {flag}: cannot listen on {taken}: Address already in use"


def test_a_unix_socket_that_is_in_use_is_not_taken(run: Run, start_server: Start, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/text.sock"
    server = start_server("--text", address)
    process = run("--text", address, "--ws", "127.0.0.1:0")
    assert process.wait() == 2
    assert "cannot listen on unix:" in last_line(process)
    with TextClient(f"{tmp_path}/text.sock") as client:
        assert client.ask({"function": "echo", "args": {}}) == {}
    assert server.running()


def last_line(process: Process) -> str:
    """What was said last; whether the tests run as root changes what is said first."""
    return process.log().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "env", "said"),
    [
        (("--speed", "9"), {}, "nothing is called '--speed'"),
        (("--workers", "none"), {}, "--workers: 'none' is not a whole number from 1 to 1024"),
        ((), {"HANDOFF_WORKERS": "none"}, "HANDOFF_WORKERS: 'none' is not a whole number from 1 to 1024"),
        (("--ws", "x\x1b[2J"), {}, "--ws: 'x\\x1b[2J' is not an address; write HOST:PORT, [IPV6]:PORT or unix:/path"),
        (("dance",), {}, "no command is called 'dance'; there are start, gateway, worker"),
        (("--data-dir", "/proc/nowhere"), {}, "--data-dir: cannot make /proc/nowhere: No such file or directory"),
    ],
)
def test_a_bad_setting_ends_the_start_with_one_line(run: Run, flags: tuple[str, ...], env: dict[str, str], said: str) -> None:
    process = run(*flags, env=env)
    assert process.wait() == 2
    assert process.log().startswith(f"handoff: {said}")
    assert process.log().count("\n") == 1


@pytest.mark.parametrize("flag", ["--tasks", "--handler"])
def test_a_module_that_does_not_load_ends_the_start_with_the_reason_and_no_storm(run: Run, flag: str) -> None:
    process = run(flag, "nosuch.module", "--ws", "127.0.0.1:0", "--text", "127.0.0.1:0")
    assert process.wait() == 2
    assert "nosuch" in process.log()
    assert "could not start, for the reason above" in process.log()
    assert "ready" not in process.out()
    assert process.log().count("ended:") <= os.cpu_count() + 1  # type: ignore[operator]


@pytest.mark.parametrize("after", [0.02, 0.05, 0.1, 0.2, 0.3])
def test_a_signal_at_any_moment_of_the_start_leaves_nothing(run: Run, after: float) -> None:
    process = run("--ws", "127.0.0.1:0", "--text", "127.0.0.1:0")
    time.sleep(after)
    assert process.stop() in (0, -signal.SIGTERM)


def test_the_mail_server_may_be_given_by_flag(start_server: Start) -> None:
    server = start_server("--smtp-url", "smtp://127.0.0.1:1")
    with TextClient(server.text_address) as client:
        answer = client.ask({"function": "send_mail", "args": {"from": "a@x.org", "to": "b@y.org", "contents": "hi"}})
        assert answer["error"]["code"] == "failed"


def test_task_modules_are_found_where_the_command_was_given(start_server: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from workers import task\n\n@task\ndef whoami() -> str:\n    return 'me'\n")
    server = start_server("--tasks", "mine", cwd=tmp_path)
    with TextClient(server.text_address) as client:
        assert client.ask({"function": "whoami"}) == "me"


def test_closed_standard_files_are_no_trouble() -> None:
    command = f"exec {sys.executable} {ROOT}/run.py --workers 1 --ws 127.0.0.1:0 --text unix:text.sock <&- 2>&-"
    process = Process(["sh", "-c", command])
    try:
        wait_until(lambda: process.out().endswith("ready\n"), 20.0, process.out)
        with TextClient(f"{process.home}/text.sock") as client:
            assert client.ask({"function": "echo", "args": {"n": 1}}) == {"n": 1}
    finally:
        process.clean()


def test_the_help_lists_commands_and_settings(run: Run) -> None:
    process = run("--help")
    assert process.wait() == 0
    assert all(word in process.out() for word in ("start ", "gateway ", "worker ", "--graceful", "HANDOFF_WS"))
