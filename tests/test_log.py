"""The log: one entry is one line, whatever came from outside, and says who wrote it and about what."""

import io
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import log
from app.errors import SettingsError
from tests.harness import FINAL, ROOT, Server, WsClient, wait_until

NASTY = ["a\nb", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\x85b", "a\u202eb", "a\x00b", "a\x7fb", "a\ud800b"]


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


@pytest.mark.parametrize("nasty", NASTY)
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


def test_an_alert_is_marked_where_it_is_a_warning_and_stands_in_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("gateway")
    logging.getLogger("x").error("disk-full: %s", "no room", extra={"task": "t"})
    assert f"gateway[{os.getpid()}] alert=yes task=t: disk-full: no room\n" in entry(capsys)
    logging.getLogger("x").info("disk-full: so it was said")
    logging.getLogger("x").error("link-up: that is no alert")
    logging.getLogger("x").error("%s", "disk-full: from outside")
    assert "alert=" not in entry(capsys)


# As JSON.


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in entry(capsys).splitlines()]


def test_json_says_the_same_in_keys(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("worker-2", form="json")
    logging.getLogger("x").warning("link-silent: %s", "worker-1", extra={"task": "6f1c"})
    logging.getLogger("x").info("started")
    alert, plain = objects(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", alert.pop("at"))
    common = {"process": "worker-2", "pid": os.getpid()}
    assert alert == {
        "level": "warning",
        **common,
        "event": "link-silent",
        "alert": True,
        "task": "6f1c",
        "message": "link-silent: worker-1",
    }
    assert {**plain, "at": ""} == {"at": "", "level": "info", **common, "message": "started"}


@pytest.mark.parametrize("nasty", NASTY)
def test_json_is_one_line_of_ascii_whatever_came_from_outside(capsys: pytest.CaptureFixture[str], nasty: str) -> None:
    log.configure("gateway", form="json")
    try:
        raise ValueError(nasty)
    except ValueError:
        logging.getLogger("x").exception("got %s", nasty, extra={"task": nasty})
    text = entry(capsys)
    assert text.count("\n") == 1
    assert text[:-1].isascii()
    assert text[:-1].isprintable()
    said = json.loads(text)
    assert (said["message"], said["task"]) == (f"got {nasty}", nasty)
    assert said["traceback"].endswith(f"ValueError: {nasty}")


# To a file.


def test_a_file_is_for_its_owner_alone_and_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for number in range(2):
        log.configure("master", form="text", path=path)
        logging.getLogger("x").info("entry %d", number)
    assert [line.split(": ")[1] for line in path.read_text().splitlines()] == ["entry 0", "entry 1"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_configured_again_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.configure("master", form="json", path=path)
    log.configure("worker-1")
    logging.getLogger("x").info("hm")
    assert json.loads(path.read_text())["process"] == "worker-1"


def test_a_file_that_cannot_be_opened_is_a_setting_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        log.configure("master", form="text", path=tmp_path / "missing" / "log")
    assert refused.value.message == f"--log-file: cannot write to {tmp_path / 'missing' / 'log'}: No such file or directory"


def test_where_it_cannot_be_opened_anew_it_goes_on_in_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    log.configure("master", form="text", path=tmp_path / "logs" / "log")
    (tmp_path / "logs").rename(tmp_path / "moved")
    log.reopen()
    assert "alert=yes: log-file-unavailable" in (tmp_path / "moved" / "log").read_text()


def test_threads_that_write_while_the_file_is_rotated_lose_and_tear_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.configure("master", form="text", path=path)
    logger = logging.getLogger("x")

    def write() -> None:
        for _ in range(500):
            logger.info("x" * 2000)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(50):
        path.rename(tmp_path / f"log.{number}")
        log.reopen()
    for thread in threads:
        thread.join()
    lines = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert len(lines) == 1500
    assert {line.partition(": ")[2] for line in lines} == {"x" * 2000}


def test_all_processes_of_a_server_go_on_in_a_new_file_and_nothing_is_lost_or_torn(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    path = tmp_path / "log"
    server = start_server("--log-file", str(path), "--log-format", "json")
    many, turns = 400, 6
    with WsClient(server.ws_url) as client:
        for number in range(many):
            client.send({"id": f"t{number}", "function": "fail", "args": [f"failure {number}"], "events": "final"})
        ended = 0
        for turn in range(turns):
            while ended < many * (turn + 1) // (turns + 1):
                ended += client.receive().get("event") in FINAL
            path.rename(tmp_path / f"log.{turn}")
            server.send_signal(signal.SIGUSR1)
            wait_until(path.exists)
        while ended < many:
            ended += client.receive().get("event") in FINAL
    wait_until(lambda: len(_failures(tmp_path)) == many)
    assert set(Counter(_failures(tmp_path)).values()) == {1}
    assert server.log() == "", "nothing goes to stderr"
    path.rename(tmp_path / "log.last")
    server.send_signal(signal.SIGUSR1)
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: path.exists() and {"process-exited", "link-up"} <= {said.get("event") for said in _said(path)})
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_what_is_printed_goes_on_in_the_new_file_where_stdout_is_the_log(tmp_path: Path) -> None:
    """As in the background."""
    path, moved = tmp_path / "log", tmp_path / "log.1"
    program = f"""if 1:
        import os
        from app import log
        log.configure("here", "info", "text", log.Path({str(path)!r}))
        print("before", flush=True)
        os.rename({str(path)!r}, {str(moved)!r})
        log.reopen()
        print("after", flush=True)
        os.write(2, b"and stderr\\n")
        os.system("echo inherited")
    """
    with open(path, "ab") as out:
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=out, stderr=out, check=True)
    assert (moved.read_text(), path.read_text()) == ("before\n", "after\nand stderr\ninherited\n")


def _said(path: Path) -> list[dict[str, Any]]:
    """The entries of a file, of which the last may be about to be written."""
    return [json.loads(line) for line in io.StringIO(path.read_text()) if line.endswith("\n")]


def _failures(folder: Path) -> list[str]:
    """The ids of the tasks of which it is logged that they failed."""
    return [said["task"] for file in folder.iterdir() for said in _said(file) if said.get("event") == "task-failed"]
