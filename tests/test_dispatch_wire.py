"""Between gateway and workers, seen from a worker's side: what it is sent, what its reports lead to, and what becomes of its tasks."""

import queue
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.effects import check_story, said_of
from tests.fake_worker import FakeWorker, Inbox
from tests.harness import FINAL, Server, WsClient, wait_until

ERROR = {"code": "failed", "message": "not yet"}


class House:
    """A gateway with workers that a test plays."""

    def __init__(self, inbox: Inbox, workers: list[FakeWorker], server: Server, client: WsClient) -> None:
        self.workers = workers
        self.server = server
        self.client = client
        self._inbox = inbox

    def submit(self, function: str = "once", **options: Any) -> str:
        """Send a task; its id."""
        task_id = uuid.uuid4().hex
        self.client.send({"id": task_id, "function": function, **options})
        return task_id

    def next(self) -> tuple[FakeWorker, Any]:
        """What came next to any of the workers."""
        return self._inbox.get(timeout=10)

    def nothing_comes(self) -> bool:
        """Whether nobody is sent anything for a while."""
        with suppress(queue.Empty):
            self._inbox.get(timeout=0.15)
            return False
        return True

    def lose(self, worker: FakeWorker) -> None:
        """This worker is gone."""
        worker.leave()
        wait_until(lambda: "link-gone" in self.server.log())

    def kinds(self, task_id: str) -> list[str]:
        """Its events by name, once it is over."""
        return [event["event"] for event in self.events(task_id)]

    def events(self, task_id: str) -> list[Any]:
        """Its events, once it is over."""
        while not _is_over(events := said_of(self.client.messages, task_id)):
            self.client.receive()
        check_story(events)
        return events


def _is_over(events: list[Any]) -> bool:
    return bool(events) and events[-1]["event"] in FINAL


@pytest.fixture
def house(start_server: Callable[..., Server]) -> Iterator[House]:
    """Two workers, ten slots and one for processes each; ready when both are known."""
    inbox: Inbox = queue.Queue()
    with FakeWorker(inbox) as one, FakeWorker(inbox) as two:
        server = start_server("gateway", "--pool", f"{one.address},{two.address}")
        wait_until(lambda: one.claims and two.claims)
        with WsClient(server.ws_url) as client:
            yield House(inbox, [one, two], server, client)


# What is sent, and to whom.


def test_a_task_is_sent_with_its_attempt_and_its_number_and_its_events_are_acknowledged(house: House) -> None:
    task_id = house.submit(args={"n": 10**30, "text": "مرحبا"}, priority=3)
    worker, task = house.next()
    assert task.pop("dispatch") > 0
    assert task == {"id": task_id, "function": "once", "args": {"n": 10**30, "text": "مرحبا"}, "attempt": 1, "seq": 1}
    worker.succeed(task, {"ok": True})
    assert house.kinds(task_id) == ["accepted", "started", "succeeded"]
    wait_until(lambda: worker.acknowledged == 2)


def test_a_retrying_that_is_no_json_changes_nothing(house: House) -> None:
    task_id = house.submit("again")
    worker, task = house.next()
    worker.say(b'{"id":"%b","event":"retrying","seq":2,"attempt":1,"after":...}\n' % task_id.encode())
    worker.succeed(task)
    assert house.kinds(task_id) == ["accepted", "started", "succeeded"]


def test_arguments_that_no_worker_would_read_are_refused(start_server: Callable[..., Server]) -> None:
    server = start_server("--max-message", "64KiB", "--max-line", "16KiB", "--workers", "1")
    with WsClient(server.ws_url) as client:
        refused = client.ask({"id": "large", "function": "echo", "args": ["x" * 20_000]})
        assert refused["error"]["code"] == "too_large"
        client.send({"id": "fits", "function": "echo", "args": {"text": "x" * 15_000}})
        assert client.final("fits")["event"] == "succeeded"
    assert "link-lost" not in server.log()


def test_tasks_go_to_the_worker_that_has_least_and_never_past_its_slots(house: House) -> None:
    for _ in range(30):
        house.submit()
    sent = [house.next() for _ in range(18)]  # of 20 slots: a tenth is kept free
    assert Counter(worker for worker, _ in sent) == dict.fromkeys(house.workers, 9)
    assert house.nothing_comes()
    for worker, task in [one for one in sent if one[0] is house.workers[0]][:4]:
        worker.succeed(task)
    assert [house.next()[0] for _ in range(4)] == house.workers[:1] * 4
    assert house.nothing_comes()


def test_max_running_is_counted_over_all_workers(house: House) -> None:
    for _ in range(8):
        house.submit("limited")
    running = [house.next() for _ in range(3)]
    for _ in range(5):
        assert house.nothing_comes()
        worker, task = running.pop(0)
        worker.succeed(task)
        running.append(house.next())


def test_slots_for_processes_are_counted_apart(house: House) -> None:
    for _ in range(3):
        house.submit("isolated")
    assert {house.next()[0], house.next()[0]} == set(house.workers)
    assert house.nothing_comes()
    house.submit()
    assert house.next()[1]["function"] == "once"


def test_a_worker_that_is_busy_after_all_costs_no_attempt(house: House) -> None:
    house.lose(house.workers[1])
    task_id = house.submit()
    for _ in range(3):
        worker, task = house.next()
        assert (task["id"], task["attempt"], task["seq"]) == (task_id, 1, 1)
        worker.say({"id": task_id, "attempt": 1, "error": {"code": "busy", "message": "all taken"}})
    worker.succeed(house.next()[1])
    assert house.kinds(task_id) == ["accepted", "started", "succeeded"]


def test_a_silent_worker_gets_nothing_more_and_what_it_has_not_begun_goes_elsewhere(house: House) -> None:
    ids = [house.submit() for _ in range(4)]
    sent = [house.next() for _ in range(4)]
    silent, other = house.workers
    waiting = [task for worker, task in sent if worker is silent][1]
    for worker, task in sent:
        if task is not waiting:
            worker.report(task, "started")
    silent.answering = False
    assert house.next() == (silent, {"id": waiting["id"], "attempt": 1, "recall": True})
    ids += [house.submit() for _ in range(4)]
    later = [house.next() for _ in range(4)]
    assert {worker for worker, _ in later} == {other}
    silent.say({"id": waiting["id"], "event": "returned", "seq": 1, "attempt": 1})
    worker, again = house.next()
    assert (again["id"], again["attempt"], again["seq"]) == (waiting["id"], 1, 1)
    silent.answering = True
    for each, task in [*later, (worker, again)]:
        each.succeed(task)
    for each, task in sent:
        if task is not waiting:
            each.report(task | {"seq": 2}, "succeeded", result=None)
    assert [house.kinds(task_id) for task_id in ids] == [["accepted", "started", "succeeded"]] * 8


# What is reported.


def test_a_report_that_may_not_be_is_refused_and_logged_and_acknowledged(house: House) -> None:
    """Acknowledged too, or the worker would count wrongly from then on."""
    task_id = house.submit()
    worker, task = house.next()
    worker.report(task, "started")
    right = {"id": task_id, "event": "succeeded", "seq": 3, "attempt": 1, "result": "right"}
    for wrong in ({"attempt": 2}, {"attempt": 0}, {"seq": 2}, {"seq": 1}, {"id": "nobody"}, {"event": "accepted"}, {"event": "due"}):
        worker.say(right | {"result": "wrong"} | wrong)
    worker.say(right)
    worker.say(right | {"event": "failed", "seq": 4})
    assert house.events(task_id)[-1]["result"] == "right"
    wait_until(lambda: worker.acknowledged == 10)
    assert house.server.log().count("report-refused") == 8


NOTHING = [
    b"\n",
    b"{\n",
    b"[]\n",
    b"\xff\n",
    b'{"pong":1}\n',
    b'{"error":1}\n',
    b'{"id":"x","error":{}}\n',
    b'{"id":1,"event":"started"}\n',
]


def test_lines_that_are_nothing_end_nothing(house: House) -> None:
    task_id = house.submit()
    worker, task = house.next()
    for line in NOTHING:
        worker.say(line)
    worker.succeed(task)
    assert house.kinds(task_id) == ["accepted", "started", "succeeded"]
    assert len(worker.claims) == 1


def test_a_worker_that_asks_for_another_attempt_gets_it_with_the_numbers_going_on(house: House) -> None:
    task_id = house.submit("again")
    worker, task = house.next()
    worker.report(task, "started", "retrying", after=0.05, error=ERROR)
    worker, second = house.next()
    assert (second["attempt"], second["seq"]) == (2, 3)
    worker.succeed(second, 2)
    assert house.kinds(task_id) == ["accepted", "started", "retrying", "started", "succeeded"]


def test_a_task_that_is_to_be_cancelled_is_not_tried_again(house: House) -> None:
    task_id = house.submit("again")
    worker, task = house.next()
    house.client.send({"id": task_id, "cancel": True})
    assert house.next() == (worker, {"id": task_id, "attempt": 1, "cancel": True})
    worker.report(task, "started", "retrying", after=30, error=ERROR)
    assert house.kinds(task_id) == ["accepted", "started", "retrying", "cancelled"]


def test_ten_thousand_lines_of_one_worker_do_not_hold_up_another_client(house: House) -> None:
    task_id = house.submit()
    worker, task = house.next()
    worker.say(
        b"".join(b'{"id":"%b","event":"output","seq":%d,"attempt":1,"value":0}\n' % (task_id.encode(), seq) for seq in range(2, 10_002))
    )
    with WsClient(house.server.ws_url) as other:
        assert other.ask({"ping": 1}) == {"pong": 1}
    worker.report(task | {"seq": 10_001}, "succeeded", result=None)
    house.client.final(task_id)
    assert len(house.events(task_id)) == 10_002


# Lost and found.


def test_a_worker_that_comes_back_is_asked_for_its_tasks_and_told_what_is_to_be_cancelled(house: House) -> None:
    task_id = house.submit()
    worker, task = house.next()
    worker.report(task, "started")
    house.client.until(lambda message: message.get("event") == "started")
    worker.cut()
    house.client.send({"id": task_id, "cancel": True})
    assert house.next() == (worker, {"id": task_id, "attempt": 1, "cancel": True})
    first, second = worker.claims
    assert (first["claim"], [claim[:3] for claim in second["claim"]]) == ([], [[task_id, 1, 2]])
    assert first["journal"] == second["journal"]
    worker.report(task | {"seq": 2}, "cancelled", error={"code": "cancelled", "message": ""})
    assert house.kinds(task_id) == ["accepted", "started", "cancelled"]


def test_a_task_that_its_worker_does_not_know_is_interrupted_or_tried_again(house: House) -> None:
    ids = {name: house.submit(name) for name in ("once", "again")}
    for worker, task in [house.next(), house.next()]:
        worker.cut()
        wait_until(lambda: len(worker.claims) == 2)  # noqa: B023 - used up at once
        worker.say({"id": task["id"], "attempt": 1, "error": {"code": "unknown_task", "message": ""}})
    assert house.events(ids["once"])[-1]["error"]["code"] == "interrupted"
    worker, second = house.next()
    assert (second["id"], second["attempt"]) == (ids["again"], 2)
    worker.succeed(second)
    assert house.kinds(ids["again"]) == ["accepted", "retrying", "started", "succeeded"]


def test_a_process_that_has_taken_the_place_of_a_lost_one_is_listened_to(house: House) -> None:
    house.lose(house.workers[1])
    worker = house.workers[0]
    worker.restart()
    wait_until(lambda: len(worker.claims) == 2)
    task_id = house.submit()
    assert house.next()[0] is worker
    worker.succeed({"id": task_id, "attempt": 1, "seq": 1})
    assert house.kinds(task_id) == ["accepted", "started", "succeeded"]
