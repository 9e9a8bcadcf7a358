"""Time limits and hard limits, whatever a task does against them: it is timed out, its neighbours unharmed where that is possible."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.effects import check_story, runs, said_of
from tests.harness import FINAL, Server, WsClient, wait_until
from tests.stubborn_tasks import HARD, SOFT

FLAGS = ("--tasks", "tests.stubborn_tasks", "--workers", "1", "--process-slots", "8", "--concurrency", "40")
NEIGHBOURS = 5

UNHARMED = (
    *(f"{name}_soft_{way}" for name, way in (("waits", "greenlet"), ("spins", "greenlet"), ("waits", "thread"))),
    *(f"{name}_hard_{way}" for name, way in (("waits", "greenlet"), ("spins", "greenlet"), ("waits", "thread"))),
    *(f"{name}_{limit}_process" for name in ("waits", "spins", "clings", "holds") for limit in ("soft", "hard")),
)
"""What is ended without harm to the process that others run in."""

TAINTING = ("shrugs_hard_greenlet", "shrugs_hard_thread", "spins_hard_thread")
"""What cannot be ended, but lets the neighbours end first."""

DEADLY = ("clings_hard_greenlet", "holds_hard_greenlet", "holds_hard_thread")
"""What is ended at once with its process, because nothing else runs while it does."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(*FLAGS)
    yield running
    running.clean()


class Ending:
    """How one task ended, and when."""

    def __init__(self, message: Any, after: float) -> None:
        self.event = message["event"]
        self.error = message.get("error", {})
        self.result = message.get("result")
        self.after = after


def run(server: Server, *tasks: tuple[str, str, Any]) -> dict[str, Ending]:
    """How these tasks (id, function, arguments) end that are sent all at once; each story is whole."""
    endings: dict[str, Ending] = {}
    with WsClient(server.ws_url) as client:
        began = time.monotonic()
        for task_id, function, args in tasks:
            client.send({"id": task_id, "function": function, "args": args})
        while len(endings) < len(tasks):
            message = client.receive(20)
            if message.get("event") in FINAL:
                endings[message["id"]] = Ending(message, time.monotonic() - began)
        for task_id, _, _ in tasks:
            check_story(said_of(client.messages, task_id))
    return endings


def neighbours(label: str, seconds: float) -> list[tuple[str, str, Any]]:
    return [(f"{label}-{number}", "neighbour", [seconds]) for number in range(NEIGHBOURS)]


# What is ended without harm: all of it at once, in one worker process.


@pytest.fixture(scope="module")
def unharmed(server: Server) -> dict[str, Ending]:
    worker = server.worker_pids()
    tasks: list[tuple[str, str, Any]] = [(name, name, []) for name in UNHARMED]
    endings = run(server, *neighbours("unharmed", 3), *tasks)
    assert server.worker_pids() == worker
    return endings


@pytest.mark.parametrize("name", UNHARMED)
def test_it_is_timed_out(unharmed: dict[str, Ending], name: str) -> None:
    ending = unharmed[name]
    assert (ending.event, ending.error["code"]) == ("timed_out", "timed_out")
    words, limit = ("hard limit of 0.6 s", HARD) if "hard" in name else ("time limit of 0.4 s", SOFT)
    assert words in ending.error["message"]
    assert limit * 0.9 < ending.after < 12


@pytest.mark.parametrize("name", [name for name in UNHARMED if name.endswith("hard_process") and "waits" not in name])
def test_where_a_process_stood_that_had_to_be_killed_is_told(unharmed: dict[str, Ending], name: str) -> None:
    assert "stubborn_tasks.py" in unharmed[name].error["stack"]
    assert f"in {name.split('_', maxsplit=1)[0]}" in unharmed[name].error["stack"]


def test_and_the_neighbours_do_not_notice(server: Server, unharmed: dict[str, Ending]) -> None:
    ends = [ending for name, ending in unharmed.items() if name.startswith("unharmed-")]
    assert [ending.event for ending in ends] == ["succeeded"] * NEIGHBOURS
    assert {ending.result for ending in ends} == set(server.worker_pids())


def test_c_code_over_its_time_limit_is_timed_out_once_it_lets_go(server: Server) -> None:
    for way in ("greenlet", "thread"):
        ending = run(server, (f"held-{way}", f"holds_soft_{way}", [0.6]))[f"held-{way}"]
        assert ending.event == "timed_out"


def test_who_ends_in_time_is_left_alone(server: Server) -> None:
    tasks: list[tuple[str, str, Any]] = [(f"fine-{way}", f"waits_hard_{way}", [0.05]) for way in ("greenlet", "thread", "process")]
    assert {ending.result for ending in run(server, *tasks).values()} == {"waited"}
    assert run(server, ("later", "neighbour", [1.8]))["later"].event == "succeeded", "nothing of those limits is left"


# What taints its process: all three together, or the first would take the others with it.


class Tainted(NamedTuple):
    """What became of a worker in which there were such tasks."""

    worker: int
    endings: dict[str, Ending]


@pytest.fixture(scope="module")
def tainted(server: Server) -> Tainted:
    (worker,) = server.worker_pids()
    again = ("again-tainted", "neighbour_again", [5.0])
    endings = run(server, *neighbours("tainted", 5.0), again, *((name, name, []) for name in TAINTING))
    wait_until(lambda: f"worker-1 (pid {worker}) ended: exit code 0" in server.log(), 10, server.log)
    return Tainted(worker, endings)


@pytest.mark.parametrize("name", TAINTING)
def test_what_cannot_be_ended_is_timed_out_before_its_process_ends(server: Server, tainted: Tainted, name: str) -> None:
    ending = tainted.endings[name]
    assert (ending.event, ending.error["code"]) == ("timed_out", "timed_out")
    assert "hard limit of 0.6 s" in ending.error["message"]
    assert ending.after < 2.9
    assert f"worker-1[{tainted.worker}] alert=yes: worker-tainted: {name} (task {name})" in server.log()
    (stuck,) = [line for line in server.log().splitlines() if f"task={name}: task-stuck" in line]
    assert f"in {name.split('_', maxsplit=1)[0]}" in stuck, "where it goes on"


def test_and_its_neighbours_are_let_end_and_another_process_is_there_at_once(server: Server, tainted: Tainted) -> None:
    assert {tainted.endings[f"tainted-{number}"].result for number in range(NEIGHBOURS)} == {tainted.worker}
    assert tainted.endings["again-tainted"].result == 1
    log = server.log()
    leaves, ended = log.index(f"worker-1 (pid {tainted.worker}) leaves"), log.index(f"worker-1 (pid {tainted.worker}) ended: exit code 0")
    assert log.count("link-up", leaves, ended) == 1
    assert log.count("link-leaving") == 1
    (following,) = server.worker_pids()
    assert run(server, ("after-tainted", "neighbour", [0]))["after-tainted"].result == following != tainted.worker


# What takes its process with it.


@pytest.mark.parametrize("name", DEADLY)
def test_what_holds_everything_is_ended_with_its_process_and_it_is_the_one_that_is_timed_out(server: Server, name: str) -> None:
    (worker,) = server.worker_pids()
    beside = [(f"beside-{name}-{number}", "waits_hard_greenlet", [0.01]) for number in range(3)]  # with the same limit, and innocent
    again = (f"again-{name}", "neighbour_again", [1.0])
    endings = run(server, *neighbours(name, 1.0), again, *beside, (name, name, []))
    assert (endings[name].event, endings[name].error["code"]) == ("timed_out", "timed_out"), endings[name].error
    assert "hard limit of 0.6 s; its process was ended" in endings[name].error["message"]
    assert f"in {name.split('_', maxsplit=1)[0]}" in endings[name].error["stack"]
    assert HARD < endings[name].after < 6
    assert {endings[f"{name}-{number}"].event for number in range(NEIGHBOURS)} <= {"interrupted", "succeeded"}
    assert {endings[task_id].event for task_id, _, _ in beside} <= {"interrupted", "succeeded"}
    assert endings[again[0]].event == "succeeded"
    counted = runs(server)
    assert all(counted[f"{name}-{number}"] <= 1 for number in range(NEIGHBOURS)), "what may not run twice did not"
    assert worker not in server.worker_pids()
    assert run(server, (f"next-{name}", "neighbour", [0]))[f"next-{name}"].event == "succeeded"


def test_of_several_with_one_limit_it_is_the_one_that_holds_everything(server: Server) -> None:
    """Those that wait are over their limit as well by then, and before it; but none of them held anything."""
    waiting = [(f"waiting-{number}", "waits_hard_greenlet", [0.45]) for number in range(4)]
    endings = run(server, *waiting, ("holder", "holds_hard_greenlet", []))
    assert endings["holder"].event == "timed_out"
    assert {endings[task_id].event for task_id, _, _ in waiting} <= {"interrupted", "succeeded"}
