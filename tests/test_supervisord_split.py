"""Gateway and workers as programs of their own (`supervisord.d/split.conf`), with a real supervisord: what works as under the master.

The same under a load of tasks, with restarts, kills and another count of workers, is in `bench/faults/service.py`.
"""

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import ROOT, Server, TextClient, WsClient, wait_until
from tests.supervision import WORKERS, Supervised, descendants

Start = Callable[..., Server]
SETTINGS = {"HANDOFF_TASKS": "tests.rude_tasks,oddjobs", "HANDOFF_HANG_LIMIT": "2", "PYTHONPATH": str(ROOT)}
GOOD = "from workers import task\n\n@task\ndef odd() -> str:\n    return 'odd'\n"


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """One for all tests: each finds everything up, and leaves it so, but for the last one."""
    clone = tmp_path_factory.mktemp("clone")
    (clone / "oddjobs.py").write_text(GOOD)
    running = Supervised(clone, "split", SETTINGS)
    yield running
    running.clean()


def descriptions(supervised: Supervised) -> dict[str, dict[str, object]]:
    """What every worker says of itself, by name: one that converses is asked again until all were met."""
    found: dict[str, dict[str, object]] = {}

    def all_met() -> bool:
        one = supervised.ask(describe=True)["describe"]
        found[one["name"]] = one
        return len(found) == supervised.workers

    wait_until(all_met)
    return found


def test_the_programs_are_there_and_the_whole_is_not(supervised: Supervised) -> None:
    names = [line.split()[0] for line in supervised.ctl("status").splitlines()]
    assert names == ["gateway", "worker:worker-1", "worker:worker-2"]
    assert len(supervised.handoff()) == 1 + WORKERS


def test_the_workers_share_a_port_know_each_other_and_have_the_names_of_their_programs(supervised: Supervised) -> None:
    described = descriptions(supervised)
    assert sorted(described) == ["worker-1", "worker-2"]
    assert {one["siblings"] for one in described.values()} == {WORKERS}


def test_a_gateway_elsewhere_meets_every_worker_at_the_shared_port(supervised: Supervised, start_server: Start) -> None:
    host, port = supervised.text_address
    elsewhere = start_server("gateway", "--pool", f"{host}:{port}")
    wait_until(lambda: {one for one in ("worker-1", "worker-2") if f"link-up: {one} " in elsewhere.log()} == {"worker-1", "worker-2"})


def test_what_is_written_is_private(supervised: Supervised) -> None:
    for name in ("supervisord.sock", "gateway.log", "worker-1.log", "journal.db"):
        assert stat.S_IMODE((supervised.var / name).stat().st_mode) == 0o600


def test_a_worker_does_not_hand_its_listener_to_what_a_task_starts(supervised: Supervised) -> None:
    pid = supervised.worker_pids()[0]
    assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
    assert supervised.ask(function="primes", args=[100]) == 25  # in a process of its own
    others = supervised.handoff() - {*supervised.worker_pids(), supervised.gateway_pid()}
    assert others
    listener = next(os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if is_listener(entry, supervised.text_address[1]))
    for other in others:
        assert listener not in [os.readlink(entry) for entry in Path(f"/proc/{other}/fd").iterdir()]


def is_listener(entry: Path, port: int) -> bool:
    with suppress(OSError):
        inode = os.readlink(entry).removeprefix("socket:[").removesuffix("]")
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(row[9] == inode and int(row[1].split(":")[1], 16) == port and row[3] == "0A" for row in rows)
    return False


def test_the_watchdog_ends_a_worker_that_hangs_its_stack_is_told_and_it_is_started_again(supervised: Supervised) -> None:
    before = set(supervised.worker_pids())
    with WsClient(supervised.ws_url) as browser:
        browser.send({"id": "s", "function": "spin"})
        final = browser.final("s", 15)
    assert final["event"] == "interrupted"
    assert "in spin" in final["error"]["stack"]
    wait_until(lambda: len(before & set(supervised.worker_pids())) == WORKERS - 1, 10, supervised.log)
    wait_until(lambda: len(supervised.worker_pids()) == WORKERS, 10, supervised.log)
    supervised.wait_up()


def test_a_killed_worker_takes_its_processes_along_and_is_reported_at_once(supervised: Supervised) -> None:
    with WsClient(supervised.ws_url) as browser:
        browser.send({"id": "p", "function": "nap_apart", "args": [60]})
        name = browser.until(lambda message: message.get("event") == "started")["worker"]
        victim = next(pid for pid in supervised.worker_pids() if supervised.name_of(pid) == name)
        theirs = wait_until(lambda: descendants(victim), message=supervised.describe)
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        final = browser.final("p")
        took = time.monotonic() - began
    assert final["event"] == "interrupted"
    assert took < 2
    wait_until(lambda: not theirs & supervised.tree(), 2, supervised.describe)
    supervised.wait_up({victim})


def test_what_a_task_has_started_does_not_outlive_its_worker(supervised: Supervised) -> None:
    for sig in (signal.SIGKILL, signal.SIGTERM):
        started = supervised.ask(function="leave_a_program", args=[600])
        victim = os.getpgid(started)
        assert victim in supervised.worker_pids()
        os.kill(victim, sig)
        wait_until(lambda started=started: started not in supervised.tree(), message=supervised.describe)  # type: ignore[misc]
        supervised.wait_up({victim})


def test_tasks_that_end_their_worker_again_and_again_do_not_end_the_program(supervised: Supervised) -> None:
    with WsClient(supervised.ws_url) as browser:
        browser.send({"id": "d", "function": "die_often"})
        final = browser.final("d", 60)
        assert (final["event"], final["error"]["code"], final["attempt"]) == ("failed", "crashed", 9)
        browser.send({"id": "after", "function": "echo", "args": {"n": 1}})
        assert browser.final("after")["result"] == {"n": 1}
    supervised.wait_up()
    assert "gave up" not in supervised.supervisor_log()


def test_who_is_sent_a_hup_is_started_again_with_newly_loaded_code(supervised: Supervised) -> None:
    """There is no master that has started another beforehand."""
    before = {supervised.gateway_pid(), *supervised.worker_pids()}
    for name in ("worker:*", "gateway"):
        assert supervised.ctl("signal", "HUP", name).count("signalled") == (1 if name == "gateway" else WORKERS)
    supervised.wait_up(before)


def test_while_one_worker_is_restarted_nobody_who_connects_is_refused(supervised: Supervised) -> None:
    before = set(supervised.worker_pids())
    starter = supervised.ctl_later("restart", "worker:worker-1")
    asked = 0
    try:
        while starter.poll() is None or asked < 20:
            with TextClient(supervised.text_address) as client:
                assert client.ask({"function": "echo", "args": {"n": asked}}) == {"n": asked}
            asked += 1
    finally:
        starter.wait(30)
    wait_until(lambda: len(set(supervised.worker_pids()) - before) == 1, message=supervised.log)
    supervised.wait_up()


def test_a_worker_that_leaves_of_its_own_accord_is_started_again(supervised: Supervised) -> None:
    supervised.wait_state("RUNNING", "worker:worker-2")
    before = set(supervised.worker_pids())
    os.kill(supervised.worker_pids()[1], signal.SIGTERM)  # as after --max-tasks, it ends with 0, and nobody has stopped it
    wait_until(lambda: "exited: worker-2 (exit status 0; not expected)" in supervised.supervisor_log())
    wait_until(lambda: len(set(supervised.worker_pids()) - before) == 1, message=supervised.log)
    supervised.wait_up()


def test_another_count_of_workers_is_taken_over_by_update(supervised: Supervised) -> None:
    supervised.count(3)
    assert supervised.ctl("reread") == "worker: changed"
    gateway = supervised.gateway_pid()
    before = set(supervised.worker_pids())
    assert supervised.ctl("update").splitlines() == ["worker: stopped", "worker: updated process group"]
    supervised.wait_up(before)
    assert {one["siblings"] for one in descriptions(supervised).values()} == {3}
    assert supervised.gateway_pid() == gateway
    assert not before & supervised.tree()
    supervised.count(WORKERS)
    supervised.ctl("update")
    supervised.wait_up()


def test_a_module_that_does_not_import_ends_the_worker_with_the_reason_and_not_in_a_storm(supervised: Supervised) -> None:
    module = supervised.clone / "oddjobs.py"
    supervised.edit("supervisord.d/split.conf", r"^startretries=3$", "startretries=1")
    supervised.ctl("update")
    supervised.wait_up()
    known = supervised.supervisor_log().count("spawned: 'worker-")
    module.write_text("import nothing_that_is_called_so\n")
    supervised.ctl("restart", "worker:*")
    for name in ("worker-1", "worker-2"):
        supervised.wait_state("FATAL|EXITED", f"worker:{name}")  # too soon, and tried again; or later, and not
    assert supervised.supervisor_log().count("spawned: 'worker-") - known <= 2 * WORKERS
    assert "No module named 'nothing_that_is_called_so'" in supervised.out()
    with WsClient(supervised.ws_url) as browser:
        browser.send({"id": "o", "function": "odd"})  # the gateway is there, and knows the function from before
        assert browser.receive()["event"] == "accepted"
        module.write_text(GOOD)
        supervised.ctl("start", "worker:*")
        assert browser.final("o", 30)["result"] == "odd"


def test_the_whole_is_one_line_away_and_update_changes_over(supervised: Supervised) -> None:
    with WsClient(supervised.ws_url) as browser:
        browser.send({"id": "later", "function": "echo", "args": {"n": 1}, "delay": 3})
        assert browser.receive()["event"] == "accepted"
    before = supervised.handoff()
    supervised.edit("supervisord.conf", "^files=.*$", "files=supervisord.d/whole.conf")
    supervised.ctl("reread")
    supervised.ctl("update")
    assert supervised.ctl("status").split()[0] == "handoff"
    supervised.wait_up(before)
    assert not before & supervised.tree()
    with WsClient(supervised.ws_url) as browser:
        browser.send({"id": "later", "attach": 0})
        assert browser.final("later", 20)["result"] == {"n": 1}


def test_a_shutdown_leaves_nothing(supervised: Supervised) -> None:
    assert supervised.ctl("shutdown") == "Shut down"
    wait_until(lambda: not supervised.tree(), message=supervised.describe)
    assert not (supervised.var / "supervisord.pid").exists()
