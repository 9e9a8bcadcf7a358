"""The rows of a server that is told to end, restarted, supervised, or started with a module that does not import.

The server is stopped with TERM and started again by hand, or by a real supervisord, in both of its forms.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from app.offspring import FIRST_DELAY
from bench.faults.accounts import Accounts, runs_of
from bench.faults.house import House, Service
from bench.faults.kills import ALL, lasting
from bench.faults.stage import Mix, Plan, Stage, staged
from tests.harness import wait_until

WATCHED = 10.0
"""Seconds for which, in the long form, starts in vain are counted."""

LONGER = 60.0
"""Seconds that a task takes which is past every limit."""


def term_under_load(plan: Plan) -> Accounts:
    """TERM under load: what had not started runs after the next start; what runs past the limit, and nothing else, is `interrupted`."""
    graceful = 2.0
    flags = ("--workers", "2", "--concurrency", "5", "--graceful", str(graceful))
    took, waiting = [], set[str]()
    with staged("term under load", plan, {"once": lasting, "again": lasting, "flows": [3, 0.1]}, *flags) as stage:
        for number in stage.portions():
            _ask(stage, {f"past-{number}": "once", f"past-again-{number}": "lingers"})
            stage.more()
            began, stage.kills = time.monotonic(), stage.kills + 1
            code = stage.house.stop(signal.SIGTERM)
            took.append(time.monotonic() - began)
            stage.want(code == 0, f"exit code {code}")
            ran = {run.id for run in runs_of(stage.house.effects)}
            waiting |= {task.id for task in stage.driver.tasks.values() if task.accepted and task.final is None and task.id not in ran}
            stage.restart()
        accounts = stage.books()
    past = {name for name in accounts.tasks if name.startswith("past-") and "again" not in name}
    accounts.want(set(accounts.interrupted) == past, f"interrupted: {sorted(set(accounts.interrupted) ^ past)[:5]} differ")
    ends = {str(accounts.tasks[name].final["event"]) for name in waiting if accounts.tasks[name].final}
    accounts.want(ends <= {"succeeded", "cancelled"} and "succeeded" in ends, f"what had not started ended as {sorted(ends)}")
    accounts.want(max(took) < graceful + 4.0, f"ended after {max(took):.1f} s")
    accounts.remarks.append(f"{len(waiting)} had not started, and ran later; ended {max(took):.1f} s after TERM, with {graceful:g} allowed")
    return accounts


def _ask(stage: Stage, tasks: dict[str, str]) -> None:
    """Tasks that are past the limit of whatever ends the server next; all of them run when this returns."""
    for name, function in tasks.items():
        stage.driver.add({"id": name, "function": function, "args": [LONGER]})
    wait_until(lambda: tasks.keys() <= {run.id for run in runs_of(stage.house.effects)}, 30, stage.state)


SLOW: Mix = {"once": lasting, "again": lasting, "asks": lasting, "flows": [3, 0.2], "large": [2000]}

Action = Callable[[Stage, Service], None]
"""Something that supervisord does, or that happens to it."""


def supervisord_restart(plan: Plan) -> Accounts:
    """The whole as one program: restarted, its master killed, supervisord itself killed."""
    return _supervised("supervisord restart", plan, "whole", (_restart_all, _kill_master, _kill_supervisord))


def supervisord_split(plan: Plan) -> Accounts:
    """The programs one by one: a worker restarted, everything restarted, another count of workers; and all the time workers leave that have
    run as many tasks as they may."""
    most = str(plan.tasks // 20 if plan.long else plan.tasks // 5)
    return _supervised("supervisord split restart", plan, "split", (_restart_worker, _restart_all, _another_count), MAX_TASKS=most)


def supervisord_kills(plan: Plan) -> Accounts:
    """The programs one by one: a worker killed, the gateway killed, supervisord itself killed."""
    return _supervised("supervisord split kills", plan, "split", (_kill_worker, _kill_gateway, _kill_supervisord))


def _supervised(row: str, plan: Plan, form: str, actions: Sequence[Action], **settings: str) -> Accounts:
    took = []
    with _service(row, plan, form, **settings) as (stage, service):
        for number in stage.portions():
            action = actions[number % len(actions)]
            stage.more()
            wait_until(lambda: stage.driver.busy, 30, stage.state)
            began, stage.kills = time.monotonic(), stage.kills + 1
            action(stage, service)
            took.append((time.monotonic() - began, action.__name__.strip("_").replace("_", " ")))
            stage.want(_listening(service), f"after {took[-1][1]} a port is not bound")
        accounts = stage.books()
        accounts.blame(stage.killed)
        left = service.supervisor_log().count("(exit status 0; not expected)")
    accounts.want(bool(stage.killed) or not accounts.interrupted, f"I = {len(accounts.interrupted)}, and nobody was killed")
    accounts.want("MAX_TASKS" not in settings or left > 0, "no worker left of its own accord")
    accounts.remarks.append(f"up again after {max(took)[0]:.1f} s at most ({max(took)[1]}); {left} workers left of their own accord")
    return accounts


@contextmanager
def _service(row: str, plan: Plan, form: str, **settings: str) -> Iterator[tuple[Stage, Service]]:
    """Slow enough that a restart is amid the load, also of few tasks."""
    settings |= {"CONCURRENCY": "20" if plan.long else "5"}
    plan = plan if plan.long else replace(plan, tasks=2 * plan.tasks)
    with staged(row, plan, SLOW, build=lambda room, effects: Service(room, effects, form, **settings)) as stage:
        assert isinstance(stage.house, Service)
        yield stage, stage.house


def _listening(service: Service) -> bool:
    """Whether somebody listens at both ports."""
    for address in (service.text_address, service.ws_address):
        with socket.socket() as probe:
            if probe.connect_ex(address) != 0:
                return False
    return True


def _renewed(stage: Stage, service: Service, before: set[int]) -> None:
    """Everything is up again, and nothing is left of these."""
    service.wait_up(before)
    stage.want(not before & service.tree(), f"orphans: {before & service.tree()}")


def _restart_all(stage: Stage, service: Service) -> None:
    before = service.handoff()
    service.ctl("restart", "all")
    _renewed(stage, service, before)


def _restart_worker(stage: Stage, service: Service) -> None:
    name = f"worker-{stage.chance.randint(1, service.workers)}"
    before = set(service.pids(name))
    service.ctl("restart", f"worker:{name}")
    _renewed(stage, service, before)


def _another_count(stage: Stage, service: Service) -> None:
    service.count(2 if service.workers > 2 else 3)
    before = set(service.worker_pids())
    service.ctl("reread")
    service.ctl("update")
    _renewed(stage, service, before)


def _kill_master(stage: Stage, service: Service) -> None:
    before = service.handoff()
    stage.killed += before  # they die with it
    os.kill(int(service.ctl("pid", "handoff")), signal.SIGKILL)
    _renewed(stage, service, before)


def _kill_worker(stage: Stage, service: Service) -> None:
    pid = stage.chance.choice(service.worker_pids())
    stage.killed.append(pid)
    os.kill(pid, signal.SIGKILL)
    _renewed(stage, service, {pid})


def _kill_gateway(stage: Stage, service: Service) -> None:
    pid = service.gateway_pid()
    os.kill(pid, signal.SIGKILL)  # not among the killed: what runs in the workers goes on, and nobody is interrupted
    _renewed(stage, service, {pid})


def _kill_supervisord(stage: Stage, service: Service) -> None:
    before = service.handoff()
    service.kill_supervisor()  # the others end as TERM ends them: nobody is interrupted
    wait_until(lambda: not service.tree(), 20, service.describe)
    service.again()
    _renewed(stage, service, before)


BREAKS = ("import nothing_that_is_called_so\n", "this is no Python\n", "raise RuntimeError('not today')\n", "import sys\n\nsys.exit(0)\n")
"""Modules that do not import."""


def broken_module(plan: Plan) -> Accounts:
    """A task module that does not import: under a running server no new worker comes up, later and later; the next start ends, and says
    why. Once it is mended, everything goes on."""
    with TemporaryDirectory(prefix="handoff-faults-") as room:
        module = Path(room) / "oddjobs.py"
        module.write_text("")
        flags = ("--workers", "2", "--concurrency", "20", "--tasks", "oddjobs")
        with staged("broken module", plan, ALL, *flags, build=lambda *place: House(*place, *flags, env={"PYTHONPATH": room})) as stage:
            for number in stage.portions():
                module.write_text(BREAKS[number % len(BREAKS)])
                _lose_a_worker(stage)
                stage.more()
                _start_in_vain(stage, module)
            accounts = stage.books()
            accounts.blame(stage.killed)
    return accounts


def _lose_a_worker(stage: Stage) -> None:
    """Its successors cannot load the module; they are tried further and further apart, and the other worker goes on."""

    def tries() -> int:
        return stage.house.log().count("cannot load the task module") - known

    known, began = stage.house.log().count("cannot load the task module"), time.monotonic()
    stage.kill(stage.chance.choice(stage.house.worker_pids()))
    wait_until(lambda: tries() >= 2, 60, stage.state)
    stage.ask(f"meanwhile-{stage.kills}", "once", [])
    if stage.plan.long:
        wait_until(lambda: time.monotonic() - began > WATCHED, 2 * WATCHED)
    took, count = time.monotonic() - began, tries()
    stage.want(took >= FIRST_DELAY / 2 * (2 ** (count - 2) - 1), f"{count} starts in {took:.1f} s")  # half of each delay is chance


def _start_in_vain(stage: Stage, module: Path) -> None:
    """Stop, start with what is broken, see it end, mend it, start again."""
    stage.house.stop(signal.SIGTERM)
    began = time.monotonic()
    assert isinstance(stage.house, House)
    code, said = stage.house.start_in_vain()
    stage.want(code == 2, f"exit code {code} with a broken module")
    stage.want("cannot load the task module oddjobs" in said, f"the reason is not in {said[-300:]!r}")
    stage.want(said.count(" ended: ") <= 3, f"{said.count(' ended: ')} processes ended in {time.monotonic() - began:.1f} s")
    module.write_text("")
    stage.restart()
