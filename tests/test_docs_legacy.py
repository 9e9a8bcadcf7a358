"""`docs/legacy.md` but for its table of drivers: its files are those of the examples, and run; its commands print what it says; each thing
to look out for is met, in every way that a task can be run."""

import http.server
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.documents import commands_of, files_of, pattern
from tests.harness import FINAL, ROOT, Process, Server, TextClient, WsClient, wait_until

pytestmark = pytest.mark.timeout(120)

DOCUMENT = (ROOT / "docs" / "legacy.md").read_text(encoding="utf-8")
FLAGS = ("--config", str(ROOT / "examples/legacy/handoff.toml"))
WAYS = ("greenlet", "thread", "process")


@pytest.fixture(scope="module")
def shop() -> Iterator[Server]:
    """The example's server, started as the document says: at the root of the repository."""
    running = Server(*FLAGS, env={"PYTHONPATH": str(ROOT)})
    yield running
    running.clean()


@pytest.fixture
def bills(tmp_path: Path) -> Path:
    """Three bills that are open."""
    path = tmp_path / "bills.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE bills (id INTEGER PRIMARY KEY, month TEXT, cents INTEGER, charged INTEGER DEFAULT 0)")
        database.executemany("INSERT INTO bills (month, cents) VALUES ('2026-11', ?)", [(1000,), (1500,), (2000,)])
    return path


def charged(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM bills WHERE charged").fetchone()[0])


def test_its_files_are_those_of_the_examples() -> None:
    shown = {name: text for name, text in files_of(DOCUMENT) if "/" in name}
    assert sorted(shown) == [f"examples/legacy/{name}" for name in ("billing.py", "handoff.toml", "nightly.py", "web.py")]
    assert {name: (ROOT / name).read_text(encoding="utf-8") for name in shown} == shown


def test_the_legacy_module_knows_nothing_of_us() -> None:
    text = (ROOT / "examples/legacy/billing.py").read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) <= sys.stdlib_module_names


@pytest.mark.parametrize(("command", "output"), list(commands_of(DOCUMENT)), ids=[command[:40] for command, _ in commands_of(DOCUMENT)])
def test_its_commands_print_what_it_says(shop: Server, bills: Path, command: str, output: str) -> None:
    words = [str(bills).join(word.split("/tmp/bills.db")) for word in shlex.split(command)]
    words = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, *words, "--ws", shop.ws_url.split("/")[2]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    seconds = re.sub(r"\d+\\\.\d+(?=\\ s)", r"\\d+\\.\\d+", pattern(output))  # each machine has its own
    assert re.fullmatch(seconds, done.stdout or done.stderr), done.stdout + done.stderr


@pytest.mark.parametrize("code", re.findall(r"^```python run\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))
def test_its_snippets_run(shop: Server, code: str) -> None:
    host, port = shop.text_address
    ours = code.replace("127.0.0.1:12345", f"{host}:{port}").replace('"127.0.0.1", 12345', f'"{host}", {port}')
    assert ours != code
    done = subprocess.run([sys.executable, "-c", ours], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("ann owes 47.78\n", "")


def fetch(url: str, method: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_view_of_flask_hands_off_and_a_second_click_charges_nobody_twice(shop: Server, bills: Path) -> None:
    pytest.importorskip("flask")
    env = {"GATEWAY": shop.http_url.rstrip("/"), "BILLS": str(bills)}
    web = Process([sys.executable, "-m", "flask", "--app", "examples.legacy.web", "run", "--port", "0"], env=env, cwd=ROOT)
    try:
        running = r"Running on (http://127.0.0.1:\d+)"
        found = wait_until(lambda: re.search(running, web.out() + web.log()), 30, web.log)
        assert found
        url = f"{found.group(1)}/charge/2026/11"
        assert fetch(url, "GET")[0] == 404, "nobody has asked for it yet"
        clicks = [fetch(url, "POST") for _ in range(2)]
        assert clicks[0][0] == 202
        assert [said["id"] for _, said in clicks] == ["charge-2026-11"] * 2
        wait_until(lambda: fetch(url, "GET")[1]["state"] == "succeeded", 20)
        assert fetch(url, "GET")[1]["result"] == {"bills": 3, "cents": 4500}
        assert charged(bills) == 3
    finally:
        web.kill()


def test_a_cron_script_waits_for_its_task_and_says_how_it_ended(shop: Server, bills: Path) -> None:
    command = [sys.executable, "-m", "examples.legacy.nightly"]

    def nightly(path: Path, month: str) -> tuple[int, str, str]:
        env = {**os.environ, "GATEWAY": shop.ws_url}
        done = subprocess.run([*command, path, month], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    assert [nightly(bills, "2026-11") for _ in range(2)] == [(0, "{'bills': 3, 'cents': 4500}\n", "")] * 2
    code, said, why = nightly(bills.parent / "no" / "bills.db", "2026-12")
    assert (code, said) == (1, "")
    assert "not charged: OperationalError: unable to open database file" in why


class Bank(http.server.BaseHTTPRequestHandler):
    """Says what a euro is worth."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"1.17")

    def log_message(self, *_: object) -> None:
        """Not to stderr."""


def test_what_waits_for_the_network_needs_nothing_but_its_name(shop: Server) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Bank) as bank:
        serving = threading.Thread(target=bank.handle_request)
        serving.start()
        assert ask(shop, "exchange_rate", f"http://127.0.0.1:{bank.server_port}/") == 1.17
        serving.join()


@pytest.mark.parametrize(("module", "needs"), [("app.client", {"ujson"}), ("app.remote", {"ujson", "websocket"})])
def test_a_client_needs_what_the_table_says(module: str, needs: set[str]) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}} - sys.stdlib_module_names - {{'app'}})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, env=without_site(), capture_output=True, text=True, timeout=30, check=True
    )
    assert needs == {name for name in done.stdout.split() if not name.startswith("_")}


def without_site() -> dict[str, str]:
    """An environment in which what is installed is found, and nothing is loaded by itself."""
    return {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


# What to look out for.


def tasks(*functions: str, options: str = "") -> list[str]:
    """Flags that make tasks of these functions, once for each way to run them."""
    return [word for name in functions for way in WAYS for word in ("--task", f"{way}.{name}=tests.habits:{name};run_in={way}{options}")]


ENV = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    limited = tasks("waits_without_end", options=";time_limit=0.4;max_running=1")
    running = Server("worker", *tasks("remembers", "forks", "asks", "leaves"), *limited, env=ENV)
    yield running
    running.clean()


def ask(server: Server, function: str, *args: Any) -> Any:
    """The result of a task, or the message of its error."""
    with TextClient(server.text_address) as client:
        answer = client.ask({"function": function, "args": list(args)}, 30)
    return answer["error"]["message"] if type(answer) is dict and "error" in answer else answer


@pytest.mark.parametrize("way", WAYS)
def test_a_thread_local_is_kept_for_the_next_task(worker: Server, way: str) -> None:
    found = [ask(worker, f"{way}.remembers", number) for number in range(20)]
    assert any(one is not None for one in found)


def test_an_alarm_works_in_a_process_alone_and_ends_a_worker(start_server: Callable[..., Server]) -> None:
    server = start_server("worker", *tasks("times_out_by_alarm"), env=ENV)
    assert ask(server, "process.times_out_by_alarm") == "in time"
    assert "signal only works in main thread" in ask(server, "thread.times_out_by_alarm")
    with TextClient(server.text_address) as client:
        client.send({"function": "greenlet.times_out_by_alarm"})
        assert client.receive_line(20) == b"", "the connection ends with the worker"
    assert server.wait() == 1


def test_a_fork_is_for_processes_and_refused_in_threads(worker: Server) -> None:
    assert ask(worker, "process.forks") == 7
    assert "child watchers are only available on the default loop" in ask(worker, "thread.forks")


def test_a_global_is_changed_by_another_task_meanwhile_but_not_where_one_runs_at_a_time(start_server: Callable[..., Server]) -> None:
    both = ("--task", "adds=tests.habits:adds", "--task", "alone=tests.habits:adds_elsewhere;max_running=1")
    server = start_server(*both, "--workers", "1", env=ENV)
    with WsClient(server.ws_url) as client:
        for function in ("adds", "alone"):
            for number in range(4):
                client.send({"id": f"{function}{number}", "function": function, "events": "final"})
        ends = [client.until(lambda message: message.get("event") in FINAL, 30) for _ in range(8)]
    found = {name: sorted(end["result"] for end in ends if end["id"].startswith(name)) for name in ("adds", "alone")}
    assert found["adds"][-1] < 4, "some were lost"
    assert found["alone"] == [1, 2, 3, 4]


def test_a_module_is_imported_in_each_process_and_not_before_the_fork(start_server: Callable[..., Server]) -> None:
    both = ("--task", "tests.habits:places", "--task", "own=tests.habits:places;run_in=process")
    server = start_server(*both, env=ENV)
    imported, ran = ask(server, "places")
    assert imported == ran
    assert ran in server.worker_pids()
    imported, ran = ask(server, "own")
    assert imported == ran
    assert ran not in server.worker_pids()


@pytest.mark.parametrize("way", WAYS)
def test_a_time_limit_is_kept_and_in_a_thread_it_is_reported_alone(worker: Server, way: str) -> None:
    with TextClient(worker.text_address) as client:
        client.send({"id": "1", "function": f"{way}.waits_without_end", "events": "final"})
        assert client.receive()["event"] == "timed_out"
        client.send({"id": "2", "function": f"{way}.waits_without_end", "events": "final"})
        answer = client.receive()
    assert answer["error"]["code"] == ("busy" if way == "thread" else "timed_out")


def test_what_is_printed_comes_out_in_the_end_and_from_a_process_after_its_task(start_server: Callable[..., Server]) -> None:
    server = start_server("worker", *tasks("prints"), env=ENV)
    for way in WAYS:
        assert ask(server, f"{way}.prints", f"from a {way}") is None
    wait_until(lambda: "from a process\n" in server.out())
    assert "from a greenlet" not in server.out(), "it waits in the buffer"
    assert server.stop() == 0
    assert {"from a greenlet", "from a thread", "from a process"} <= set(server.out().splitlines())


@pytest.mark.parametrize("way", WAYS)
def test_nobody_answers_and_an_exit_ends_the_task_alone(worker: Server, way: str) -> None:
    assert ask(worker, f"{way}.asks") == "EOFError: EOF when reading a line"
    assert ask(worker, f"{way}.leaves") == "SystemExit: enough"
    assert ask(worker, "echo", "still there") is not None
