"""The journal on a disk that is full, or fails."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest

from app.child import EXIT_JOURNAL
from app.durable import DurableJournal
from app.holdings import BESIDE, RESERVE, Reserve
from app.journal import Record
from app.messages import State
from app.store import Store
from app.task import Task
from tests.harness import ROOT, wait_until
from tests.journals import accept, commit, ended, make_task

WRITES = (
    "import sys; from pathlib import Path; from app.durable import DurableJournal; from tests.journals import *\n"
    "from app import holdings; holdings.FOLD_AT_LATEST = holdings.FOLD_AT\n"
    "journal = DurableJournal(Path(sys.argv[1]), 'full', 3600.0, 0.0)\n"
    "for n in range(25):\n"
    "    tasks = [make_task(f't{n}x{k}', args=b'[\"%b\"]' % (b'x' * 2000)) for k in range(20)]\n"
    "    commit(journal, *(accept(task) for task in tasks)); commit(journal, *(ended(task, 2) for task in tasks))\n"
    "journal.close()\n"
)


def syncs(directory: Path, *inject: str) -> tuple[int, list[str]]:
    """The exit code of a process that writes a journal, and its fsyncs."""
    directory.mkdir()
    trace = directory / "trace"
    command = ["strace", "-f", "-y", "-e", "trace=fdatasync", *inject, "-o", str(trace), sys.executable, "-c", WRITES, str(directory)]
    code = subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode
    return code, [line for line in trace.read_text().splitlines() if "fdatasync" in line]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes the disk fail")
def test_no_fsync_fails_unseen(tmp_path: Path) -> None:
    """SQLite's own log is written into the file now and then: an error there counts as one of a commit does."""
    code, made = syncs(tmp_path / "well")
    assert code == 0
    folded = [number for number, line in enumerate(made, 1) if "journal.db>" in line]
    for number in (folded[2] - 1, folded[2]):
        code, made = syncs(tmp_path / str(number), "-e", f"inject=fdatasync:error=EIO:when={number}")
        assert "INJECTED" in made[-1], "nothing is confirmed after it"
        assert code == EXIT_JOURNAL


def ended_well(task: Task) -> Record:
    """It succeeds."""
    task.state, task.seq = State.SUCCEEDED, 2
    return ended(task, 2)


def fill(journal: DurableJournal) -> int:
    """Accept and end tasks until one is refused; how many were kept."""
    for number in range(1000):
        task = make_task(f"t{number}", args=b'["%b"]' % (b"x" * 20_000))
        if commit(journal, accept(task)):
            return number
        commit(journal, ended_well(task))
    raise AssertionError("the disk is never full")


def test_a_disk_that_the_journal_fills_is_used_again_when_tasks_are_forgotten(small_disk: Path) -> None:
    journal = DurableJournal(small_disk, "full", 0.5, 0.0)
    assert fill(journal) > 100, "most of the disk is used"
    wait_until(lambda: gevent.sleep(0.05) or not journal.full, 10)
    assert not commit(journal, accept(make_task("again")))
    journal.close()


def test_a_journal_is_closed_and_opened_on_a_disk_that_others_have_filled(small_disk: Path) -> None:
    journal = DurableJournal(small_disk, "full", 3600.0, 0.0)
    task = make_task("a")
    commit(journal, accept(task), ended_well(task))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "others").write_bytes(b"x" * 9_000_000)
    journal.close()
    journal = DurableJournal(small_disk, "full", 3600.0, 0.0)
    stored = journal.read("a")
    assert stored is not None
    assert stored.final
    journal.close()


def test_a_store_that_cannot_be_opened_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(store: Store) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "apply", is_full)
        with pytest.raises(sqlite3.OperationalError) as failed:
            Store(tmp_path / "journal.db", "full", 1.0)
    Store(tmp_path / "journal.db", "full", 1.0).close()
    assert failed.traceback, "the store that failed is held meanwhile"


def test_a_thread_that_fails_ends_the_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from app.durable import DurableJournal\n"
        "journal = DurableJournal(Path(sys.argv[1]), 'full', 1.0, 0.0)\n"
        "journal._scribe.ask(lambda: 1 / 0)\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert asked.returncode == EXIT_JOURNAL
    assert "ZeroDivisionError" in asked.stderr


def test_a_disk_that_was_full_has_room_again_where_there_is_some_beside_what_is_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path / "reserve")

    def with_left(left: int) -> bool:
        monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=left, f_frsize=1))
        return reserve.take_again()

    assert not with_left(RESERVE)
    assert not reserve.taken
    assert with_left(RESERVE + BESIDE)
    assert reserve.taken
