"""`supervisord.conf` as it is, with a real supervisord in the background: Handoff is started, restarted, killed and stopped.

What only the master promises, whoever started it, is in `test_run.py`; the other form, of programs of their own, in
`test_supervisord_split.py`; both under a load of tasks, in `bench/faults/service.py`.
"""

import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, TextClient, wait_until
from tests.supervision import WORKERS, Supervised

OURS = 2 + WORKERS  # with the master and the gateway


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """One for all tests: each finds Handoff started and leaves it so, but for the last one, which ends everything."""
    running = Supervised(tmp_path_factory.mktemp("clone"))
    yield running
    running.clean()


def echo(supervised: Supervised) -> None:
    assert supervised.ask(function="echo", args={"text": "hello"}) == {"text": "hello"}


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a git repository, or no git")
def test_the_repository_has_var_and_nothing_in_it() -> None:
    kept = subprocess.run(["git", "ls-files", "var"], cwd=ROOT, capture_output=True, check=True)
    assert kept.stdout.split() == [b"var/.gitignore"]
    subprocess.run(["git", "check-ignore", "-q", "var/supervisord.log"], cwd=ROOT, check=True)


def test_it_is_up_with_one_command_and_runs_a_task(supervised: Supervised) -> None:
    echo(supervised)
    supervised.wait_state("STARTING|RUNNING")
    assert len(supervised.handoff()) == OURS


def test_all_that_it_writes_is_in_var_and_private(supervised: Supervised) -> None:
    assert {path.name for path in supervised.clone.iterdir()} == {"run.py", "supervisord.conf", "supervisord.d", "var"}
    assert stat.S_IMODE((supervised.var / "supervisord.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((supervised.var / "handoff.log").stat().st_mode) == 0o600


def test_its_limit_of_open_files_is_raised(supervised: Supervised) -> None:
    wanted = re.search(r"^minfds=(\d+)$", (ROOT / "supervisord.conf").read_text(), re.MULTILINE)
    assert wanted
    limits = [Path(f"/proc/{pid}/limits").read_text() for pid in supervised.handoff()]
    found = [int(soft) for text in limits for soft in re.findall(r"^Max open files +(\d+)", text, re.MULTILINE)]
    assert min(found) >= int(wanted[1])


def test_a_restart_makes_new_processes_and_binds_the_port_again(supervised: Supervised) -> None:
    before = supervised.handoff()
    assert supervised.ctl("restart", "handoff").splitlines() == ["handoff: stopped", "handoff: started"]
    supervised.wait_state("RUNNING")
    supervised.wait_up(before)
    now = supervised.handoff()
    assert len(now) == OURS
    assert not now & before
    echo(supervised)


def test_a_master_that_was_killed_is_started_again_and_nothing_is_left_of_the_old_one(supervised: Supervised) -> None:
    supervised.wait_state("RUNNING")
    before = supervised.handoff()
    os.kill(int(supervised.ctl("pid", "handoff")), signal.SIGKILL)
    wait_until(lambda: not supervised.handoff() & before, 2.0, supervised.describe)
    supervised.wait_up(before)
    assert "exited: handoff (terminated by SIGKILL; not expected)" in supervised.supervisor_log()
    assert len(supervised.handoff()) == OURS
    echo(supervised)


def test_what_runs_when_supervisord_is_killed_ends_and_the_next_one_waits_for_the_ports(supervised: Supervised) -> None:
    before = supervised.handoff()
    with TextClient(supervised.text_address) as client:
        client.send({"id": "t1", "function": "sleep", "args": {"seconds": 2}})
        client.until(lambda message: message["event"] == "started")
        supervised.kill_supervisor()
        supervised.again()
        assert client.receive()["event"] == "succeeded"
    supervised.wait_up(before)
    assert not supervised.tree() & before
    echo(supervised)


def test_a_stop_waits_for_running_tasks_and_a_shutdown_leaves_nothing(supervised: Supervised) -> None:
    with TextClient(supervised.text_address) as client:
        client.send({"id": "t1", "function": "sleep", "args": {"seconds": 1}})
        client.until(lambda message: message["event"] == "started")
        assert supervised.ctl("stop", "handoff") == "handoff: stopped"
        assert client.receive()["event"] == "succeeded"
    assert not supervised.handoff()
    supervised.wait_state("STOPPED")
    assert supervised.supervisor_log().splitlines()[-1].endswith("stopped: handoff (exit status 0)")
    assert supervised.ctl("shutdown") == "Shut down"
    wait_until(lambda: not supervised.tree(), message=supervised.describe)
    left = {path.name for path in supervised.var.iterdir() if not path.name.startswith("journal.")}
    assert left - {"run"} == {".gitignore", "handoff.log", "supervisord.log"}
