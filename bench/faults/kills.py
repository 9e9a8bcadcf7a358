"""The rows of the kills: of workers, of the gateway, of the master, of everything; idle, in mid-task, after the effect."""

import os
import random
import signal
import time
from contextlib import suppress
from typing import Any

from bench.faults.accounts import Accounts, runs_of
from bench.faults.house import deaths
from bench.faults.stage import STEADY, Mix, Plan, Stage, brief, staged
from tests.harness import wait_until


def lasting(chance: random.Random) -> list[Any]:
    """A task of 100 to 250 ms: whoever is killed has some of them."""
    return [round(0.1 + chance.random() * 0.15, 3)]


ONCE: Mix = {"once": brief}
AGAIN: Mix = {"again": brief}
ALL: Mix = {"once": brief, "again": brief, "asks": brief, "flows": [3, 0.03], "large": [2000]}

SLOTS = 20
FLAGS = ("--workers", "2", "--concurrency", str(SLOTS))


def idle_worker(plan: Plan) -> Accounts:
    """kill -9 of an idle worker: nothing is interrupted, and another takes its place within a second."""
    took = []
    with staged("idle worker", plan, ALL, *FLAGS) as stage:
        for _ in stage.portions():
            wait_until(lambda: stage.driver.idle, 30, stage.state)
            _steady(stage)
            known = stage.house.log().count("link-up")
            began = time.monotonic()
            stage.kill(stage.chance.choice(stage.house.worker_pids()))
            wait_until(lambda known=known: stage.house.log().count("link-up") > known, 10, stage.state)  # type: ignore[misc]
            took.append(time.monotonic() - began)
        accounts = stage.books()
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}: {accounts.reasons}")
    accounts.want(accounts.extra == 0, f"E = {accounts.extra}")
    accounts.want(max(took) < (1.0 if plan.long else 3.0), f"replaced after {max(took):.2f} s")
    accounts.remarks.append(f"replaced within {max(took):.2f} s at most")
    return accounts


def busy_worker(plan: Plan) -> Accounts:
    """kill -9 of a worker in mid-task, not retryable: interrupted is what it was running."""
    accounts = _kill_workers("busy worker", plan, {"once": lasting})
    accounts.want(accounts.interrupted != [], "the kills hit nobody")
    accounts.want(len(accounts.interrupted) <= SLOTS * accounts.kills, f"I = {len(accounts.interrupted)}")
    return accounts


def busy_worker_again(plan: Plan) -> Accounts:
    """The same, retryable: run again, and so succeeded."""
    accounts = _kill_workers("busy worker, retryable", plan, {"again": lasting})
    ends = {task.final["event"] for task in accounts.tasks.values() if task.final}
    accounts.want(ends <= {"succeeded", "cancelled"}, f"ended as {sorted(ends)}")
    accounts.want(0 < accounts.extra <= SLOTS * accounts.kills, f"E = {accounts.extra}")
    return accounts


def _kill_workers(row: str, plan: Plan, mix: Mix) -> Accounts:
    with staged(row, plan, mix, *FLAGS) as stage:
        for _ in stage.portions():
            _steady(stage)
            pids = stage.house.worker_pids()
            stage.more()
            known = len(runs_of(stage.house.effects))
            wait_until(lambda known=known: len(runs_of(stage.house.effects)) > known or stage.driver.idle, 30, stage.state)  # type: ignore[misc]
            stage.kill(runs_of(stage.house.effects)[-1].pid if not plan.long else stage.chance.choice(pids))
            if plan.long and stage.chance.random() < 0.3 and len(pids) > 1:  # the other as well, at once
                stage.kill(next(pid for pid in pids if pid != stage.killed[-1]))
        accounts = stage.books()
        accounts.blame(stage.killed)
    return accounts


def _steady(stage: Stage) -> None:
    """In the long form, mostly wait until the master would replace a process at once; else it would wait for longer and longer."""
    if stage.plan.long and stage.chance.random() < 0.8:
        time.sleep(STEADY)


def after_effect(plan: Plan) -> Accounts:
    """kill -9 after the effect, before the reply: `interrupted`, as it may not be run again."""
    accounts = _dying("after the effect", plan, "dies_after", ONCE)
    dying = [task for task in accounts.tasks.values() if task.function == "dies_after"]
    accounts.want(all(task.final and task.final["event"] == "interrupted" for task in dying), "not all of them were interrupted")
    accounts.want(all(accounts.lines[task.id] == 1 for task in dying), "not all of them took effect")
    return accounts


def before_effect(plan: Plan) -> Accounts:
    """kill -9 before the effect: `interrupted` all the same, since nobody can know."""
    accounts = _dying("before the effect", plan, "dies_before", ONCE)
    dying = [task for task in accounts.tasks.values() if task.function == "dies_before"]
    accounts.want(all(task.final and task.final["event"] == "interrupted" for task in dying), "not all of them were interrupted")
    return accounts


def after_effect_again(plan: Plan) -> Accounts:
    """The same, retryable: it takes effect twice, and succeeds."""
    accounts = _dying("after the effect, retryable", plan, "dies_after_once", AGAIN)
    dying = [task for task in accounts.tasks.values() if task.function == "dies_after_once"]
    accounts.want(all(task.final and task.final["event"] == "succeeded" for task in dying), "not all of them succeeded")
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}: {accounts.reasons}")
    accounts.want(len(dying) <= accounts.extra <= SLOTS * len(dying), f"E = {accounts.extra} with {len(dying)} kills")
    return accounts


def _dying(row: str, plan: Plan, function: str, mix: Mix) -> Accounts:
    """The load, and in each portion of it one task that ends its worker."""
    with staged(row, plan, mix, *FLAGS) as stage:
        for number in stage.portions():
            _steady(stage)
            stage.ask(f"dying-{number}", function, [])
            stage.kills += 1
        return stage.books()


POINTS = {
    "gateway at its commits": ("before-commit:2", "after-commit:1", "before-final:2"),
    "gateway at its dispatches": ("before-dispatch:2", "after-dispatch:5", "after-send:9"),
    "gateway at its reports": ("after-final:2", "after-send:2", "in-recovery:2"),
    "gateway in its tables": ("in-apply:2", "after-commit:1", "in-apply:1"),
}


def gateway_at(row: str, plan: Plan) -> Accounts:
    """kill -9 of the gateway at named points: running tasks go on in their workers, and are reported by the next."""
    rounds = max(1, plan.kills // len(POINTS[row])) if plan.long else 1
    points = POINTS[row] * rounds
    with staged(row, plan, ALL, *FLAGS, points=points) as stage:
        for number in range(len(points)):
            for step in range(1, 5):  # until the point is reached; how many commits there are in so many tasks, chance says
                stage.driver.allow((number + step / 4) / (len(points) + 1))
                wait_until(lambda number=number: deaths(stage.house.data_dir) > number or stage.driver.idle, 60, stage.state)  # type: ignore[misc]
            with suppress(AssertionError):  # a point in the tables may be reached later, and without more tasks
                wait_until(lambda number=number: deaths(stage.house.data_dir) > number, 3)  # type: ignore[misc]
            if plan.long:  # else it would be replaced later and later
                wait_until(stage.house.gateway_pid, 60, stage.state)
                time.sleep(2 * STEADY)
        stage.kills = deaths(stage.house.data_dir)
        accounts = stage.books()
    accounts.want(accounts.kills == len(points), f"{len(points) - accounts.kills} points were not reached")
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}: {accounts.reasons}")
    accounts.want(accounts.extra == 0, f"E = {accounts.extra}")
    return accounts


def gateway(plan: Plan) -> Accounts:
    """kill -9 of the gateway under load: running tasks go on in their workers, and are claimed by the next."""
    with staged("gateway", plan, ALL, *FLAGS) as stage:
        for _ in stage.portions():
            _steady(stage)
            stage.kill(stage.house.gateway_pid())
            if stage.chance.random() < 0.3:  # the next as well, as soon as it is there, or a little later
                wait_until(lambda: stage.house.gateway_pid() != stage.killed[-1], 60)
                time.sleep(stage.chance.random() * 0.8)
                stage.kill(stage.house.gateway_pid())
        accounts = stage.books()
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}: {accounts.reasons}")
    accounts.want(accounts.extra == 0, f"E = {accounts.extra}")
    return accounts


def master(plan: Plan) -> Accounts:
    """kill -9 of the master: no orphan after 2 s; the next start goes on."""
    took = []
    with staged("master", plan, ALL, *FLAGS) as stage:
        for _ in stage.portions():
            began = time.monotonic()
            stage.killed += stage.house.tree()
            stage.kills += 1
            os.kill(stage.house.pid, signal.SIGKILL)
            wait_until(lambda: not stage.house.tree(), 10, lambda: stage.house.describe())
            took.append(time.monotonic() - began)
            stage.restart()
        accounts = stage.books()
        accounts.blame(stage.killed)
    accounts.want(max(took) < 2.0, f"the last process was gone after {max(took):.2f} s")
    accounts.remarks.append(f"nothing of it left after {max(took):.2f} s at most")
    return accounts


def everything(plan: Plan) -> Accounts:
    """kill -9 of everything at once: recovered within 5 s of the next start."""
    took = []
    with staged("everything", plan, ALL, *FLAGS) as stage:
        for _ in stage.portions():
            stage.killed += stage.house.tree()
            stage.kills += 1
            stage.house.kill()
            began = time.monotonic()
            stage.restart()
            stage.more()  # or nothing is to be heard, where all that was submitted is over
            wait_until(lambda began=began: stage.driver.heard_at > began, 30, stage.state)  # type: ignore[misc]
            took.append(time.monotonic() - began)
        accounts = stage.books()
        accounts.blame(stage.killed)
    accounts.want(max(took) < (5.0 if plan.long else 15.0), f"recovered after {max(took):.2f} s")
    accounts.remarks.append(f"heard of again {max(took):.2f} s after the start at most")
    return accounts
