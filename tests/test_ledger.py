"""The ledger by itself, with nobody around it: what must hold whoever watches."""

import gevent
import pytest

from app.errors import Cancelled, HandoffError
from app.journal import MemoryJournal
from app.ledger import Ledger
from app.messages import Event, Submit
from app.places import Places
from app.task import Task
from app.turn import Turn


class Listener:
    """Notes what it is told, and fails at it where it is to."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.heard: list[tuple[int, bool]] = []

    def deliver(self, seq: int, line: bytes, final: bool) -> None:
        self.heard.append((seq, final))
        if self.fails:
            raise RuntimeError("cannot hear")

    def already_known(self) -> None:
        raise AssertionError("all ids are new")

    def refused(self, error: HandoffError) -> None:
        raise AssertionError("there is room")


def test_a_watcher_that_fails_keeps_nothing_from_the_others_of_its_commit(caplog: pytest.LogCaptureFixture) -> None:
    loop = gevent.get_hub().loop
    ledger = Ledger(MemoryJournal("j"), Places(), Turn(loop), loop)
    listeners = [Listener(fails=True), Listener(), Listener()]
    tasks = [Task("", None, Submit(f"t{number}", "echo", None), b"{}", number) for number in range(2)]
    tasks[0].watchers += listeners[:2]
    tasks[1].watchers.append(listeners[2])
    for task in tasks:
        ledger.accept(task)
    gevent.sleep(0.01)
    for task in tasks:
        assert ledger.end(task, Event.CANCELLED, Cancelled("enough"))
    gevent.sleep(0.01)
    assert [listener.heard for listener in listeners] == [[(1, False), (2, True)]] * 3
    assert ledger.live == {}
    assert caplog.text.count("watcher-failed") == 2
