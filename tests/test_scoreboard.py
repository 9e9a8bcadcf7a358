"""The scoreboard: a slot a process, freed by its end however that comes, and totals that never go back. Real processes are killed."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gevent
import pytest

from app.address import Address
from app.figures import BOUNDS, MOST_FUNCTIONS, OTHERS, Durations, Ends
from app.heartbeat import Heartbeat, Look
from app.presence import Presence
from app.scoreboard import HALF, MOST_SAID, SLOT, Board, add
from app.settings import load
from tests.harness import ROOT

Start = Callable[..., "Scorer"]


class Scorer:
    """A process that has a slot."""

    def __init__(self, directory: Path, count: int, *how: str) -> None:
        command = [sys.executable, "-m", "tests.scorer", str(directory), str(count), *how]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.slot = int(self.process.stdout.readline() or 0)

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Scorer] = []

    def one(count: int, *how: str) -> Scorer:
        started.append(Scorer(tmp_path, count, *how))
        return started[-1]

    yield one
    for scorer in started:
        scorer.kill()
        scorer.process.__exit__(None, None, None)


@pytest.fixture
def board(tmp_path: Path, start: Start) -> Iterator[Board]:
    """To read, with somebody there who says 1000 and stays."""
    start(1000)
    opened = Board(tmp_path)
    yield opened
    opened.close()


def done(board: Board) -> int:
    return int(board.read().counts["done"])


def test_where_nobody_ever_was_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Board(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_each_process_has_a_slot_of_its_own_and_what_it_said_is_there(board: Board, start: Start) -> None:
    scorers = [start(count) for count in range(1, 6)]
    assert [scorer.slot for scorer in scorers] == [2, 3, 4, 5, 6]
    reading = board.read()
    assert [said["pid"] for said in reading.alive[1:]] == [scorer.process.pid for scorer in scorers]
    assert [said["slot"] for said in reading.alive] == [1, 2, 3, 4, 5, 6]
    assert reading.counts["done"] == 1015
    assert reading.counts["ended"]["f3"] == [3]


def test_a_kill_frees_the_slot_and_what_was_counted_stays_counted_once(board: Board, start: Start) -> None:
    first = start(5)
    first.kill()
    reading = board.read()
    assert (len(reading.alive), reading.counts["done"]) == (1, 1005)
    second = start(7)
    assert second.slot == first.slot
    assert done(board) == 1012
    second.kill()
    third = start(11)
    assert third.slot == first.slot
    assert done(board) == 1023
    assert board.read().counts["ended"] == {"f1000": [1000], "f5": [5], "f7": [7], "f11": [11]}


def test_a_kill_in_the_middle_of_a_takeover_counts_nothing_twice(board: Board, start: Start) -> None:
    start(5).kill()
    assert start(7, "--bury").slot == 0  # it did not come to print one
    assert done(board) == 1005
    start(11)
    assert done(board) == 1016


def test_a_half_that_is_torn_is_not_believed(board: Board, start: Start, tmp_path: Path) -> None:
    start(5, "--again")
    deadline = time.monotonic() + 1.0
    seen = [0]
    while time.monotonic() < deadline:
        seen.append(done(board))
    assert seen == sorted(seen), "a total went back"
    assert seen[-1] > 1000


def test_a_half_that_is_damaged_is_as_if_it_had_not_been_written(board: Board, start: Start, tmp_path: Path) -> None:
    scorer = start(5, "--twice")
    before = done(board)
    with open(tmp_path / "scoreboard", "r+b") as file:
        heads = [os.pread(file.fileno(), 8, scorer.slot * SLOT + half) for half in (0, HALF)]
        newer = 0 if int.from_bytes(heads[0], "little") > int.from_bytes(heads[1], "little") else HALF
        os.pwrite(file.fileno(), b"\0torn", scorer.slot * SLOT + newer + 40)
    assert done(board) == before - 1


def test_counting_begins_anew_where_nobody_is_left(start: Start, tmp_path: Path) -> None:
    for scorer in [start(5), start(7)]:
        scorer.kill()
    board = Board(tmp_path)
    assert board.read() == ([], {"done": 12, "ended": {"f5": [5], "f7": [7]}})
    start(1)
    assert done(board) == 1
    board.close()


def test_many_that_come_at_once_get_in_nobodys_way(board: Board, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.scorer", str(tmp_path), "1"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(12)]
    slots = [int(process.stdout.readline()) for process in processes if process.stdout]
    assert sorted(slots) == list(range(2, 14))
    assert done(board) == 1012
    for process in processes:
        process.communicate()
    assert done(board) == 1012


def test_a_slot_is_this_users_alone_and_takes_so_much(tmp_path: Path) -> None:
    slot = Board(tmp_path, make=True).take()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    slot.write({"id": "x", "text": "y" * (MOST_SAID - 30)})
    with pytest.raises(ValueError, match="too many"):
        slot.write({"id": "x", "text": "y" * MOST_SAID})
    assert slot.board.read().alive[0]["id"] == "x"
    slot.board.close()


def test_trees_of_numbers_add_up() -> None:
    assert add({"a": 1, "b": {"c": [1, 2]}}, {"b": {"c": [1, 1, 1], "d": 0.5}, "e": 2}) == {"a": 1, "b": {"c": [2, 3, 1], "d": 0.5}, "e": 2}


def test_a_process_goes_on_where_there_is_no_room_for_a_slot_and_takes_one_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.presence.AGAIN_AFTER", 0.02)
    full = OSError(errno.ENOSPC, "No space left on device")
    allocate = Mock(side_effect=[full] * 5 + [0] * 2)
    really = os.posix_fallocate
    monkeypatch.setattr("os.posix_fallocate", lambda *where: allocate() or really(*where))
    settings = load(["--data-dir", str(tmp_path)], {})
    address = Address("127.0.0.1", 1)
    presence = Presence(gevent.get_hub().loop, settings, "worker", "worker-1", address, lambda: Look(0, 0, 0, [], {}, {}))
    presence.start(lambda: iter(()))
    opened = len(os.listdir("/proc/self/fd"))
    until = time.monotonic() + 10
    while allocate.call_count < 5 and time.monotonic() < until:
        gevent.sleep(0.005)
    assert len(os.listdir("/proc/self/fd")) == opened
    while presence.board is None and time.monotonic() < until:
        gevent.sleep(0.02)
    gevent.sleep(0.1)
    assert caplog.text.count("scoreboard-unavailable") == 1
    assert allocate.call_count == 7
    assert presence.board is not None
    assert [said["name"] for said in presence.board.read().alive] == ["worker-1"]
    presence.stop()


def test_what_a_task_forks_takes_no_slot_for_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.presence.AGAIN_AFTER", 0.02)
    settings = load(["--data-dir", str(tmp_path)], {})
    (settings.run_dir / "scoreboard").mkdir(parents=True)
    look = Look(0, 0, 0, [], {}, {})
    presence = Presence(gevent.get_hub().loop, settings, "worker", "worker-1", Address("127.0.0.1", 1), lambda: look)
    presence.start(lambda: iter(()))
    (settings.run_dir / "scoreboard").rmdir()
    with monkeypatch.context() as fork:
        fork.setattr(os, "getpid", lambda: 1)
        gevent.sleep(0.1)
    gevent.sleep(0.1)
    assert presence.board is None


def test_what_a_task_forks_does_not_speak_for_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, looked = _Loop(), iter(range(10))
    heartbeat = Heartbeat(loop, "worker", "worker-1", "", lambda: Look(0, next(looked), 0, [], {}, {}))
    board = heartbeat.start(tmp_path)
    loop.beat()
    assert board.read().alive[0]["began"] == 1
    monkeypatch.setattr(os, "getpid", lambda: 1)
    loop.beat()
    assert board.read().alive[0]["began"] == 1
    assert loop.beat is None
    board.close()


class _Loop:
    """Its one timer goes off when the test says so."""

    beat: Any = None

    def timer(self, *_: float) -> Any:
        return self

    def start(self, beat: Callable[[], None]) -> None:
        self.beat = beat

    def stop(self) -> None:
        self.beat = None


# What is counted.


def test_times_are_counted_below_the_bounds_that_metrics_have() -> None:
    times = Durations()
    for seconds in (0.0, 0.0009, 0.0011, 1.0, 5000.0):
        times.add(seconds)
    tree = times.tree()
    below = dict(zip(BOUNDS, tree["below"], strict=False))
    assert (below[0.001024], below[0.002048]) == (2, 3)
    assert (below[0.524288], below[1.048576]) == (3, 4)
    assert (tree["below"][-2], tree["below"][-1]) == (4, 5)
    assert tree["micros"] == 5001002000
    assert len(tree["below"]) == len(BOUNDS) + 1


def test_functions_past_the_bound_are_counted_together() -> None:
    ends = Ends()
    for number in range(MOST_FUNCTIONS + 5):
        ends.add(f"f{number}", "succeeded", 0.1)
        ends.add(f"f{number}", "failed", None)
    tree = ends.tree()
    assert len(tree["ended"]) == MOST_FUNCTIONS + 1
    assert tree["ended"]["f3"] == {"succeeded": 1, "failed": 1}
    assert tree["ended"][OTHERS] == {"succeeded": 5, "failed": 5}
    assert tree["runs"]["below"][-1] == MOST_FUNCTIONS + 5


def test_a_signal_that_only_stops_a_process_does_not_free_its_slot(board: Board, start: Start) -> None:
    scorer = start(5)
    os.kill(scorer.process.pid, signal.SIGSTOP)
    assert [said["pid"] for said in board.read().alive][1] == scorer.process.pid
