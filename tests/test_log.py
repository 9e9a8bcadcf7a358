"""The log: one entry is one line, whatever came from outside, and says who wrote it and about what."""

import logging
import os
import re
from collections.abc import Iterator

import pytest

from app import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before[0], before[1]
    logging.captureWarnings(False)


def entry(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_an_entry_says_when_how_bad_who_and_about_what(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("worker-2")
    logging.getLogger("x").info("started %s", "echo", extra={"task": "6f1c", "connection": "c9"})
    wanted = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z INFO worker-2\[{os.getpid()}\] task=6f1c connection=c9: started echo\n"
    assert re.fullmatch(wanted, entry(capsys))


def test_fields_that_are_not_known_take_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("gateway")
    logging.getLogger("x").warning("hm")
    assert entry(capsys).endswith(f" WARNING gateway[{os.getpid()}]: hm\n")


@pytest.mark.parametrize("nasty", ["a\nb", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\x85b", "a\u202eb", "a\x00b", "a\ud800b"])
def test_text_from_outside_cannot_make_an_entry_look_like_two(capsys: pytest.CaptureFixture[str], nasty: str) -> None:
    log.configure("gateway")
    logging.getLogger("x").info("got %s", nasty, extra={"task": nasty})
    text = entry(capsys)
    assert text[:-1].isprintable()
    assert len(text.splitlines()) == 1


def test_text_that_is_not_ascii_stays_readable(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("gateway")
    logging.getLogger("x").info("مرحبا 🚀")
    assert "مرحبا 🚀" in entry(capsys)


def test_every_line_of_a_traceback_stands_behind_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("gateway")
    try:
        raise ValueError("x\n2026-05-01T12:00:00.123Z INFO master[1]: forged\x1b")
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, *rest = entry(capsys).splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


def test_entries_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("gateway", "warning")
    logging.getLogger("x").info("quiet")
    assert entry(capsys) == ""
