"""The end of a turn of the event loop: what is done there, in which order, and how long what is in no hurry may be held back."""

import socket
import time

import gevent
import pytest

from app.turn import AT_LATEST, Turn


@pytest.fixture
def turn() -> Turn:
    """Of the test's own hub."""
    return Turn(gevent.get_hub().loop)


def test_what_is_added_while_the_turn_ends_still_belongs_to_it(turn: Turn) -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        turn.add(lambda: done.append("third"))

    turn.add(first)
    turn.add(lambda: done.append("second"))
    assert done == []
    gevent.sleep(0)
    assert done == ["first", "second", "third"]


def test_one_that_fails_does_not_keep_the_others(turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    turn.add(_fail)
    turn.add(lambda: done.append("second"))
    gevent.sleep(0)
    assert done == ["second"]
    assert "turn-failed: _fail" in caplog.text
    assert "with these words" not in caplog.text, "they may be somebody's arguments"


def test_what_waits_for_an_idle_loop_is_done_once_there_is_nothing_else(turn: Turn) -> None:
    done: list[str] = []
    turn.add_when_idle(lambda: done.append("late"))
    turn.add(lambda: done.append("soon"))
    gevent.sleep(0.5)
    assert done == ["soon", "late"]


@pytest.mark.parametrize("round_", range(3))
def test_a_loop_that_is_never_idle_holds_nothing_back_for_long(turn: Turn, round_: int) -> None:
    """A socket that is always readable is an event of every turn; only then is a loop busy in the sense of an idle watcher."""
    ours, theirs = socket.socketpair()
    theirs.sendall(b"x")
    loop = gevent.get_hub().loop
    always = loop.io(ours.fileno(), 1)
    turns: list[float] = []
    always.start(lambda: turns.append(time.monotonic()))
    done: list[float] = []
    for _ in range(2):  # a second time, as the timer is used again
        done.clear()
        begun, before = time.monotonic(), len(turns)
        turn.add_when_idle(lambda: done.append(time.monotonic()))
        while not done and time.monotonic() < begun + 5:
            gevent.sleep(0.001)
        assert done, "held back by a busy loop"
        assert done[0] - begun >= AT_LATEST / 2, "it was idle"
        assert len(turns) > before
    always.stop()
    always.close()
    ours.close()
    theirs.close()


def _fail() -> None:
    raise RuntimeError(" ".join(("with", "these", "words")))
