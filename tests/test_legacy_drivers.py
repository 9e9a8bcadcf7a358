"""The table of drivers in `docs/legacy.md`, row by row, in a real worker and against real servers, or stand-ins that let a client wait.

What co-operates overlaps with itself, and meanwhile the worker answers pings; what does not holds both up, and is named in the log. Only
ratios are looked at, and the waits get longer until they are right, since the machine may be busy: what holds the hub does so at each try.
"""

import importlib.util
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.documents import files_of
from tests.driverworkers import WAYS, Workers, run
from tests.harness import ROOT, Server, TextClient, wait_until

pytestmark = pytest.mark.timeout(180)

DOCUMENT = (ROOT / "docs" / "legacy.md").read_text(encoding="utf-8")


UNDECIDED = """
import contextlib, os, oracledb
def connect(seconds):
    with contextlib.suppress(oracledb.OperationalError):
        oracledb.connect(user="a", password="b", dsn="127.0.0.1:%s/x" % os.environ["TEST_SILENT"])
"""


class Row(NamedTuple):
    """One library of the table: what it does in a greenlet, and what its tasks are to be run in."""

    name: str
    manner: str
    run_in: str

    @property
    def function(self) -> str:
        """The part of its name in `tests/drivers.py` that follows `use_`."""
        return re.sub(r"\W+", "_", self.name).lower()


def rows(*manners: str) -> list[Row]:
    """The rows of the table that have one of these words for what it does in a greenlet."""
    found = re.findall(r"^\| (.+?) \| (co-operates|holds the hub|computes|one at a time|hangs) \| `(\w+)` \| .*\|$", DOCUMENT, re.MULTILINE)
    assert len(found) > 15
    parted = [Row(name, manner, run_in) for names, manner, run_in in found for name in re.findall(r"`([^`]+)`", names) or [names]]
    return [row for row in parted if row.manner in manners]


def named(row: Row) -> str:
    return row.function


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    home = tmp_path_factory.mktemp("legacy")
    for name, text in files_of(DOCUMENT):
        if "/" not in name:
            (home / name).write_text(text, encoding="utf-8")
    with ExitStack() as stack:
        ready = Workers(stack, home)
        ready.place("sqlite", stack.enter_context(a_locked_database(home / "locked.db")))
        ready.place("pipes", home)
        yield ready


@contextmanager
def a_locked_database(path: Path) -> Iterator[Path]:
    """A file of SQLite into which nobody else can write."""
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("CREATE TABLE kept (number)")
        holder.execute("BEGIN EXCLUSIVE")
        yield path


def skip_where_it_is_missing(row: Row) -> None:
    if row.function == "mysqlclient" and importlib.util.find_spec("MySQLdb") is None:
        pytest.skip("no mysqlclient, which has to be compiled")


@pytest.mark.parametrize("row", rows("co-operates"), ids=named)
def test_what_co_operates(workers: Workers, row: Row) -> None:
    assert row.run_in == "greenlet"
    found = workers.best(workers.serving(row.function), f"greenlet.{row.function}")
    assert found.overlapped, found


@pytest.mark.parametrize("row", rows("holds the hub", "computes"), ids=named)
def test_what_holds_the_hub_is_named_and_does_not_where_it_is_told_to_run(workers: Workers, row: Row) -> None:
    skip_where_it_is_missing(row)
    server = workers.serving(row.function)
    found = run(server, f"greenlet.{row.function}", 2)
    assert found.ends == ["succeeded"] * 2
    assert found.blocked, found
    assert f"hub-blocked: greenlet.{row.function} has held the hub for" in server.log()
    found = workers.best(server, f"{row.run_in}.{row.function}")
    assert found.overlapped, found


def test_a_thread_does_not_help_where_the_gil_is_held(workers: Workers) -> None:
    found = run(workers.serving("a_c_function_that_holds_the_gil"), "thread.a_c_function_that_holds_the_gil", 2)
    assert found.blocked, found


@pytest.mark.parametrize("module", ["waiting", "greening"])
def test_psycopg2_co_operates_where_it_is_told_how_to_wait(workers: Workers, module: str) -> None:
    found = workers.best(workers.serving("psycopg2", "--tasks", module), "greenlet.psycopg2")
    assert found.overlapped, found


def ask(server: Server, function: str) -> str:
    with TextClient(server.text_address) as client:
        return str(client.ask({"function": function}, 30))


def test_with_a_wait_callback_psycopg2_has_neither_copy_nor_large_objects(workers: Workers) -> None:
    tasks = ("--task", "tests.drivers:copies", "--task", "tests.drivers:opens_a_large_object")
    plain, waiting = (workers.serving("psycopg2", *tasks, *more) for more in ((), ("--tasks", "waiting")))
    for task in ("copies", "opens_a_large_object"):
        assert ask(plain, task) == "None"
        assert "ProgrammingError" in ask(waiting, task)


def test_c_code_that_minds_signals_is_disturbed_in_greenlets_alone(workers: Workers) -> None:
    tasks = [f"{way}.time=tests.drivers:time_in_c_that_minds_signals;run_in={way}" for way in WAYS]
    server = workers.serving("time_sleep", *(word for one in tasks for word in ("--task", one)))
    assert float(ask(server, "greenlet.time")) < 0.95
    assert float(ask(server, "thread.time")) >= 1
    assert float(ask(server, "process.time")) >= 1


def test_where_oracledb_is_not_told_its_mode_connections_are_opened_one_after_the_other(
    workers: Workers, start_server: Callable[..., Server]
) -> None:
    (workers.home / "undecided.py").write_text(UNDECIDED, encoding="utf-8")
    workers.slow.seconds = 0.5
    found = run(start_server("worker", "--task", "undecided:connect", env=workers.environ), "connect", 3, 0.5)
    assert found.total > 0.8 * 3 * 0.5, found


def test_a_pool_of_psycopg2_does_not_wait(workers: Workers) -> None:
    server = workers.serving("psycopg2", "--task", "tests.drivers:empties_a_pool")
    assert "PoolError: connection pool exhausted" in ask(server, "empties_a_pool")


def test_after_an_interrupt_a_connection_is_of_no_use(workers: Workers) -> None:
    server = workers.serving("pg8000", "--task", "tests.drivers:goes_on_after_an_interrupt")
    # It was asked for 2. Where the machine is so busy that it was interrupted earlier, it is not of any use either, but says so.
    wait_until(lambda: ask(server, "goes_on_after_an_interrupt") == "1", 60)


def test_a_connection_is_not_for_two_tasks_at_once(workers: Workers) -> None:
    server = workers.serving("pymysql", "--task", "tests.drivers:shares_a_connection")
    assert run(server, "shares_a_connection", 1).ends == ["succeeded"]
    assert run(server, "shares_a_connection", 3).ends != ["succeeded"] * 3


def test_asyncio_in_greenlets_is_one_at_a_time_and_in_threads_is_not(workers: Workers) -> None:
    (row,) = rows("one at a time")
    server = workers.serving(row.function)
    assert run(server, f"greenlet.{row.function}", 1).ends == ["succeeded"]
    ends = run(server, f"greenlet.{row.function}", 2).ends
    assert ends.count("succeeded") == 1
    assert any("asyncio.run() cannot be called from a running event loop" in end for end in ends)
    assert workers.best(server, f"{row.run_in}.{row.function}").overlapped


def test_programs_are_not_started_from_threads(workers: Workers) -> None:
    (end,) = run(workers.serving("subprocess"), "thread.subprocess", 1).ends
    assert "child watchers are only available on the default loop" in end


def test_the_status_of_a_program_is_lost_in_threads_where_gevent_waits_for_others(start_server: Callable[..., Server]) -> None:
    tasks = [f"{way}=tests.drivers:statuses_of_os_system;run_in={way}" for way in WAYS] + ["tests.drivers:use_subprocess"]
    server = start_server("worker", *(word for one in tasks for word in ("--task", one)), env={"PYTHONPATH": str(ROOT)})
    with TextClient(server.text_address) as client:
        assert client.ask({"function": "use_subprocess", "args": [0]}) is None
        wait_until(lambda: any(client.ask({"function": "thread", "args": [50]}, 30)), 60)
        assert client.ask({"function": "process", "args": [50]}, 30) == [0] * 50
        assert client.ask({"function": "greenlet", "args": [50]}, 30) == [0] * 50


@pytest.mark.parametrize("function", ["multiprocessing", "process_pool_executor"])
def test_what_makes_processes_of_its_own_does_so_in_a_process_of_its_own(workers: Workers, function: str) -> None:
    assert [(row.function, row.run_in) for row in rows("hangs")] == [("multiprocessing", "process")]
    assert run(workers.serving(function), f"process.{function}", 2).ends == ["succeeded"] * 2


def test_in_a_greenlet_it_hangs_with_its_worker(start_server: Callable[..., Server]) -> None:
    flags = ["--task", "hangs=tests.drivers:use_multiprocessing", "--hang-limit", "1.5"]
    server = start_server("worker", *flags, env={"PYTHONPATH": str(ROOT)})
    with TextClient(server.text_address) as client:
        client.send({"id": "1", "function": "hangs", "args": [0.1]})
        assert client.receive()["event"] == "started"
        wait_until(lambda: not server.running(), 20)
    assert "hub-blocked: " in server.log()
    server.kill()  # and the processes that it made
