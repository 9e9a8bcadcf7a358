"""The HTTP API with a journal whose commits come late, at random: nothing is answered before its commit, and one id is one task."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.effects import check_story, effects
from tests.harness import WsClient
from tests.httpapi import EventStream, HttpClient, Reply, fresh
from tests.latehouse import LateGateway, late_house


@pytest.fixture(scope="module")
def shared_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateGateway]:
    flags = ("--longest", "0.05", "--seed", str(random.randrange(1 << 30)))
    with late_house(tmp_path_factory.mktemp("late") / "data", *flags) as (gateway, _):
        yield gateway


@pytest.fixture
def house(shared_house: LateGateway) -> Iterator[LateGateway]:
    """The gateway that all tests here share; none leaves a failure in its log."""
    yield shared_house
    for failure in ("Traceback", "request-failed", "turn-failed", "report-failed"):
        assert failure not in shared_house.log()


def test_what_was_accepted_is_there_at_once(house: LateGateway) -> None:
    with HttpClient(house) as api:
        for _ in range(20):
            accepted = api.submit("echo")
            assert accepted.status in (200, 202)
            assert api.ask("GET", accepted.headers["location"]).status == 200


def test_of_many_that_use_one_id_at_once_one_task_is_run_and_the_others_are_told(house: LateGateway) -> None:
    for _ in range(5):
        task_id = fresh()

        def submit(number: int, task_id: str = task_id) -> Reply:
            with HttpClient(house) as api:
                return api.submit("mark", {"note": f"n{number % 2}"}, wait=9 * (number % 3), id=task_id)

        with ThreadPoolExecutor(12) as pool:
            replies = list(pool.map(submit, range(12)))
        [ran] = effects(house, task_id)
        won = int(ran.note[1:])
        assert all(reply.status in (200, 202) for reply in replies[won::2])
        assert [reply.code for reply in replies[1 - won :: 2]] == ["id_conflict"] * 6


def test_a_websocket_that_wants_the_end_alone_and_http_agree_whose_id_it_is(house: LateGateway) -> None:
    with WsClient(house.ws_url) as client, HttpClient(house) as api:
        for number in range(20):
            task_id = fresh()
            client.send({"id": task_id, "function": "mark", "args": {"note": "ws"}, "events": "final"})
            reply = api.submit("mark", {"note": "ws" if number % 2 else "http"}, id=task_id)
            told = client.receive()
            if number % 2:
                assert reply.status in (200, 202)
                assert told["event"] == "succeeded"
            else:
                assert (reply.status == 409) != ("error" in told and told["error"]["code"] == "id_conflict")
            assert api.ask("GET", f"/tasks/{task_id}", Prefer="wait=9").body["state"] == "succeeded"
            assert len(effects(house, task_id)) == 1


def test_a_stream_says_nothing_that_is_not_kept_and_leaves_nothing_out(house: LateGateway) -> None:
    with HttpClient(house) as api:
        for width in (1, 20_000):
            task_id = api.submit("flow", {"count": 60, "pause": 0.002, "width": width}).body["id"]
            events: list[Any] = []
            with EventStream(house, task_id) as stream:
                for event in stream:
                    events.append(event)
                    if len(events) % 10 == 0:
                        assert api.ask("GET", f"/tasks/{task_id}").body["seq"] >= event["seq"]
            check_story(events)
            assert len(events) == 63


def test_a_task_that_is_cancelled_while_it_is_on_its_way_into_the_journal_has_one_end(house: LateGateway) -> None:
    with HttpClient(house) as api, WsClient(house.ws_url) as client:
        for _ in range(10):
            task_id = fresh()
            client.send({"id": task_id, "function": "sleep", "args": [30]})
            while api.ask("DELETE", f"/tasks/{task_id}").status == 404:
                pass
            with EventStream(house, task_id) as stream:
                events = list(stream)
            check_story(events)
            assert events[-1]["event"] == "cancelled"
