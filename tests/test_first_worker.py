"""A gateway that has not met a worker yet: it says so, which is not the same as a function that nobody has."""

from pathlib import Path

import gevent
import pytest

from app import settings
from app.dispatch import Dispatcher
from app.errors import HandoffError, Unavailable
from app.journal import MemoryJournal
from app.messages import Submit
from app.turn import Turn


def test_a_task_is_refused_as_unavailable_and_its_sender_told_to_try_again(tmp_path: Path) -> None:
    chosen = settings.load(["--data-dir", str(tmp_path / "data")], {})
    dispatcher = Dispatcher(chosen, MemoryJournal("j"), Turn(gevent.get_hub().loop))
    with pytest.raises(Unavailable, match="no worker has been met yet") as refused:
        dispatcher.call("", "echo", {})
    assert refused.value.as_wire()["retry_after"] > 0
    with pytest.raises(Unavailable):
        dispatcher.submit("", None, Submit("t1", "echo", None), _Nobody())
    assert dispatcher.list("", 10) == []


class _Nobody:
    def deliver(self, seq: int, line: bytes, final: bool) -> None:
        raise AssertionError("nothing was accepted")

    def already_known(self) -> None:
        raise AssertionError("nothing was accepted")

    def refused(self, error: HandoffError) -> None:
        raise AssertionError("nothing was accepted")
