"""With a journal whose commits come late, at random: nothing leaves before its commit, nothing is said twice or left out, nothing runs
twice."""

import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.effects import check_story, effects, said_of
from tests.harness import FINAL, Server, WsClient
from tests.latehouse import LateGateway, late_house
from tests.randomload import Load


@pytest.fixture(scope="module")
def shared_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateGateway]:
    flags = ("--longest", "0.05", "--seed", str(random.randrange(1 << 30)))
    with late_house(tmp_path_factory.mktemp("late") / "data", *flags) as (gateway, _):
        yield gateway


@pytest.fixture
def house(shared_house: LateGateway) -> Iterator[LateGateway]:
    """The gateway that all tests here share; each uses ids of its own, and leaves no failure in the log."""
    yield shared_house
    for failure in ("promise-broken", "Traceback", "message-failed", "turn-failed", "report-failed", "connection-failed"):
        assert failure not in shared_house.log()


@pytest.fixture
def ids() -> list[str]:
    """Thirty that nobody had before."""
    return [uuid.uuid4().hex for _ in range(30)]


def checked(gateway: Server) -> dict[str, int]:
    """How many messages of each kind were seen to leave after their commit."""
    lines = [line for line in gateway.log().splitlines() if "promise-checked" in line]
    return json.loads(lines[-1].partition("promise-checked: ")[2])


def test_a_random_load_is_told_and_run_exactly_once(house: LateGateway) -> None:
    load = Load(house, random.randrange(1 << 30))
    load.run(1000)
    load.check(load.stories())
    seen = checked(house)
    assert min(seen["dispatch"], seen["accepted"], seen["started"], seen["succeeded"], seen["cancelled"]) > 0


def test_what_is_over_and_sent_again_and_cancelled_at_once_stays_as_it_was(house: LateGateway, ids: list[str]) -> None:
    """The journal knows that it is over before the gateway does; a cancel that comes in between is not a second end."""
    tasks = [{"id": task_id, "function": "mark", "args": {"note": "x"}} for task_id in ids]
    with WsClient(house.ws_url) as client:
        for task in tasks:
            client.send(task)
        whole = {task_id: until_over(client, task_id) for task_id in ids}
    with WsClient(house.ws_url) as client:
        for task in tasks:
            client.send(task)
            is_answered(client)
            client.send({"id": task["id"], "cancel": True})
        assert {task_id: until_over(client, task_id) for task_id in ids} == whole
    assert [len(effects(house, task_id)) for task_id in ids] == [1] * 30


def test_a_cancel_while_the_submit_is_on_its_way_into_the_journal_is_kept(house: LateGateway, ids: list[str]) -> None:
    with WsClient(house.ws_url) as client:
        for number, task_id in enumerate(ids):
            client.send({"id": task_id, "function": "sleep", "args": [30], "delay": 0.001 * (number % 3), "priority": number})
            if number % 2:
                is_answered(client)
            client.send({"id": task_id, "cancel": True})
        for task_id in ids:
            events = until_over(client, task_id)
            check_story(events)
            assert events[-1]["event"] == "cancelled"


def test_who_attaches_from_the_first_sees_all_of_it_even_if_the_submitter_wants_the_end_alone(house: LateGateway, ids: list[str]) -> None:
    with WsClient(house.ws_url) as client, WsClient(house.ws_url) as other:
        for task_id in ids:
            client.send({"id": task_id, "function": "mark", "events": "final"})
            is_answered(client)
            other.send({"id": task_id, "attach": 0})
        for task_id in ids:
            check_story(until_over(other, task_id))
            assert [event["event"] for event in until_over(client, task_id)] == ["succeeded"]


def test_of_two_who_send_different_tasks_under_one_id_at_once_one_is_refused(house: LateGateway, ids: list[str]) -> None:
    with WsClient(house.ws_url) as one, WsClient(house.ws_url) as two:
        for task_id in ids:
            for client in (one, two):
                client.send({"id": task_id, "function": "echo", "args": {"one": client is one}, "events": "final"})
        for task_id in ids:
            answers = {client is one: until_over(client, task_id) or refusal(client, task_id) for client in (one, two)}
            assert sorted(type(answer) is list for answer in answers.values()) == [False, True]
            for is_one, answer in answers.items():
                if type(answer) is list:
                    assert answer[0]["result"] == {"one": is_one}
                else:
                    assert answer == "id_conflict"


def test_who_sends_a_task_again_gets_it_while_somebody_sends_other_content_under_its_id(house: LateGateway, ids: list[str]) -> None:
    with WsClient(house.ws_url) as client, WsClient(house.ws_url) as other:
        for number, task_id in enumerate(ids):
            task = {"id": task_id, "function": "echo", "args": {"n": number}, "events": "final"}
            assert client.ask(task)["result"] == {"n": number}
            other.send(task | {"args": {"n": "other"}})
            is_answered(other)
            assert client.ask(task)["result"] == {"n": number}
        assert {until_over(other, task_id) or refusal(other, task_id) for task_id in ids} == {"id_conflict"}


def is_answered(client: WsClient) -> None:
    """All that was sent before has been read."""
    client.send({"ping": 0})
    client.until(lambda message: "pong" in message)


def until_over(client: WsClient, task_id: str) -> Any:
    """The events of a task that is over; nothing for one that was refused."""
    while not (events := said_of(client.messages, task_id)) or events[-1]["event"] not in FINAL:
        if refusal(client, task_id):
            return None
        client.receive()
    return events


def refusal(client: WsClient, task_id: str) -> str:
    """The code with which it was refused, where it was."""
    codes = [message["error"]["code"] for message in client.messages if message.get("id") == task_id and "event" not in message]
    return codes[0] if codes else ""
