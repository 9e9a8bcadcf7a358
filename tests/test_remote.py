"""The Python session against a scripted server: the promises that tests/node holds handoff.js to."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.errors import IdConflict, RemoteError, Unavailable
from app.remote import Session
from app.remote.connection import Backoff
from app.remote.socket import Pace
from tests.harness import wait_until
from tests.scripted import HASTE, Scripted, story, unknown


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as one:
        yield one


# While the connection holds.


def test_a_task_tells_each_event_once_and_in_order_and_gives_its_result(scripted: Scripted) -> None:
    task = scripted.session().submit("send_mails", {"to": ["ä@example.org"]}, priority=3, on_disconnect="cancel")
    peer = scripted.peer(1)
    (submit,) = peer.heard(1)
    said = {"function": "send_mails", "args": {"to": ["ä@example.org"]}, "priority": 3, "on_disconnect": "cancel"}
    assert submit == {"id": task.id, **said}
    first, second, third, *rest = story(task.id)
    peer.say(first, second, second, first, third, second, *rest, *rest)
    assert list(task.events(5.0)) == story(task.id)
    assert task.result() == {"sent": 2}
    assert (task.state, task.finished, task.seq, task.done, task.total, task.note) == ("succeeded", True, 5, 2, 2, "all")


def test_where_an_event_is_missing_what_followed_is_asked_for_again(scripted: Scripted) -> None:
    task = scripted.session().submit("send_mails")
    peer = scripted.peer(1)
    first, second, third, fourth, last = story(task.id)
    peer.say(first, fourth, last)
    assert peer.heard(2)[1] == {"id": task.id, "attach": 1}
    peer.say(second, third, fourth, last)
    assert list(task.events(5.0)) == story(task.id)


def test_a_gap_that_nothing_fills_does_not_hold_the_task_up_for_ever(scripted: Scripted) -> None:
    task = scripted.session().submit("send_mails")
    peer = scripted.peer(1)
    first, *_, last = story(task.id)
    peer.say(first, last)
    peer.heard(3)
    peer.say(last)
    assert list(task.events(5.0)) == [first, last]


def test_a_call_asks_for_the_final_event_alone_and_takes_it_at_once(scripted: Scripted) -> None:
    session = scripted.session()
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(session.call("echo", [1])))
    thread.start()
    (submit,) = scripted.peer(1).heard(1)
    assert submit["events"] == "final"
    scripted.peer(1).say(story(submit["id"])[4])
    thread.join(5.0)
    assert results == [{"sent": 2}]
    assert len(scripted.peer(1).received) == 1


@pytest.mark.parametrize("ending", ["failed", "timed_out", "cancelled", "interrupted"])
def test_a_task_that_did_not_succeed_raises_the_error_that_it_was_given(scripted: Scripted, ending: str) -> None:
    task = scripted.session().submit("fail")
    error = {"code": ending, "message": "so it was", "line": 3}
    scripted.peer(1).say(story(task.id)[0], {"id": task.id, "event": ending, "seq": 2, "attempt": 1, "error": error})
    assert [event["event"] for event in task.events(5.0)] == ["accepted", ending]
    with pytest.raises(RemoteError, match="so it was") as caught:
        task.result()
    assert caught.value.as_wire() == error
    assert task.state == ending


def test_a_refused_submit_raises_its_code_and_details(scripted: Scripted) -> None:
    task = scripted.session().submit("send_mails", {"to": 3})
    scripted.peer(1).say({"id": task.id, "error": {"code": "bad_arguments", "message": "to: a list", "parameter": "to"}})
    with pytest.raises(RemoteError) as caught:
        list(task.events(5.0))
    assert (caught.value.code, caught.value.details, task.state) == ("bad_arguments", {"parameter": "to"}, "refused")


def test_a_cancel_that_is_refused_does_not_end_a_task_that_runs(scripted: Scripted) -> None:
    task = scripted.session().submit("sleep", [9])
    peer = scripted.peer(1)
    peer.say(*story(task.id)[:2])
    wait_until(lambda: task.state == "started")
    task.cancel()
    assert peer.heard(2)[1] == {"id": task.id, "cancel": True}
    peer.say({"id": task.id, "error": {"code": "forbidden", "message": "not yours"}}, *story(task.id)[2:])
    assert task.result(5.0) == {"sent": 2}


def test_one_id_is_one_task(scripted: Scripted) -> None:
    session = scripted.session()
    task = session.submit("echo", {"a": 1, "b": 2}, id="mine")
    assert session.submit("echo", {"b": 2, "a": 1}, id="mine", priority=1) is task
    assert session.attach("mine") is task
    with pytest.raises(IdConflict):
        session.submit("echo", {"a": True, "b": 2}, id="mine")
    assert len(scripted.peer(1).heard(1)) == 1


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_json_cannot_say_is_an_error_to_the_caller(scripted: Scripted, value: Any) -> None:
    session = scripted.session()
    with pytest.raises((TypeError, ValueError)):
        session.submit("echo", {"value": value})
    session.submit("echo", id="next")
    assert [message["id"] for message in scripted.peer(1).heard(1)] == ["next"]


def test_attach_asks_for_what_came_after_a_seq(scripted: Scripted) -> None:
    task = scripted.session().attach("elsewhere", 2)
    assert scripted.peer(1).heard(1) == [{"id": "elsewhere", "attach": 2}]
    scripted.peer(1).say(*story("elsewhere")[2:])
    assert list(task.events(5.0)) == story("elsewhere")[2:]


def test_an_attach_that_is_refused_for_the_moment_is_tried_again(scripted: Scripted) -> None:
    task = scripted.session().attach("busy")
    peer = scripted.peer(1)
    peer.heard(1)
    peer.say({"id": "busy", "error": {"code": "rate_limited", "message": "slowly", "retry_after": 0.02}})
    assert peer.heard(2)[1] == {"id": "busy", "attach": 0}
    peer.say(*story("busy"))
    assert task.result(5.0) == {"sent": 2}


def test_a_task_that_came_too_often_is_sent_again_later_and_is_not_refused(scripted: Scripted) -> None:
    task = scripted.session().submit("echo", {"n": 1})
    peer = scripted.peer(1)
    peer.heard(1)
    peer.say({"id": task.id, "error": {"code": "rate_limited", "message": "slowly", "retry_after": 0.02}})
    first, again = peer.heard(2)
    assert again == first
    peer.say(*story(task.id))
    assert task.result(5.0) == {"sent": 2}


def test_a_list_is_asked_for_until_all_were_looked_at_or_enough_is_found(scripted: Scripted) -> None:
    session = scripted.session()
    peer = scripted.peer(1)
    lists: list[Any] = []
    thread = threading.Thread(target=lambda: lists.extend(session.list(limit, 5.0, state="failed") for limit in (3, 1)))
    thread.start()
    assert peer.heard(1)[-1] == {"list": {"limit": 3, "state": "failed"}}
    peer.say({"list": [{"id": "a"}], "before": 20})
    assert peer.heard(2)[-1] == {"list": {"limit": 2, "state": "failed", "before": 20}}
    peer.say({"list": [], "before": 10})
    assert peer.heard(3)[-1] == {"list": {"limit": 2, "state": "failed", "before": 10}}
    peer.say({"list": [{"id": "b"}]})
    assert peer.heard(4)[-1] == {"list": {"limit": 1, "state": "failed"}}
    peer.say({"list": [{"id": "c"}], "before": 20})
    thread.join(5.0)
    assert lists == [[{"id": "a"}, {"id": "b"}], [{"id": "c"}]]


def test_requests_are_answered_in_their_order_and_a_refusal_without_an_id_is_that_of_the_first(scripted: Scripted) -> None:
    session = scripted.session()
    peer = scripted.peer(1)
    answers: list[Any] = []

    def ask() -> None:
        answers.append(session.describe(5.0))
        with pytest.raises(RemoteError, match="1 or more"):
            session.list(-1, 5.0)
        answers.append(session.list(5, 5.0))

    thread = threading.Thread(target=ask)
    thread.start()
    assert peer.heard(1)[-1] == {"describe": True}
    peer.say("task complete", "[1", [1], {"hello": 1}, {"id": "x", "event": "started", "seq": 1}, {"describe": {"functions": []}})
    assert peer.heard(2)[-1] == {"list": {"limit": -1}}
    peer.say({"error": {"code": "bad_request", "message": "limit: 1 or more"}})
    assert peer.heard(3)[-1] == {"list": {"limit": 5}}
    peer.say({"list": [{"id": "a"}]})
    thread.join(5.0)
    assert answers == [{"functions": []}, [{"id": "a"}]]
    with pytest.raises(Unavailable, match="has not answered"):
        session.describe(0.05)


def test_a_task_left_early_is_heard_of_no_more(scripted: Scripted) -> None:
    session = scripted.session()
    run = session.run("countdown")
    thread = threading.Thread(target=lambda: scripted.peer(1).say(*story(scripted.peer(1).heard(1)[0]["id"])))
    thread.start()
    assert next(run)["event"] == "accepted"
    run.close()  # type: ignore[attr-defined]
    thread.join(5.0)
    assert session._conversation._unfinished == {}


def test_pings_of_the_gateway_are_answered_and_messages_past_the_limit_are_not_taken(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.remote.socket.MAX_MESSAGE", 1000)
    session = scripted.session()
    scripted.peer(1).ping(b"are you there")
    assert scripted.peer(1).heard(1) == [(10, b"are you there")]
    scripted.peer(1).say("x" * 600)
    scripted.peer(1).say("x" * 600)
    session.submit("echo", id="still")
    assert scripted.peer(1).heard(2)[1]["id"] == "still"
    scripted.peer(1).say("x" * 1100)
    assert scripted.peer(2).heard(1)[0]["id"] == "still"


# When it does not hold.


def test_a_submit_that_was_not_answered_is_sent_again_under_its_id_in_the_order_of_submission(scripted: Scripted) -> None:
    session = scripted.session()
    tasks = [session.submit("echo", {"n": n}) for n in range(3)]
    sent = list(scripted.peer(1).heard(3))
    scripted.peer(1).drop()
    assert scripted.peer(2).heard(3) == sent
    scripted.peer(2).say(*(event for task in tasks for event in story(task.id)))
    assert [task.result(5.0) for task in tasks] == [{"sent": 2}] * 3


def test_however_often_the_connection_drops_each_event_is_told_once_and_in_order(scripted: Scripted) -> None:
    task = scripted.session().submit("send_mails")
    for index, event in enumerate(story(task.id)):
        peer = scripted.peer(index + 1)
        assert peer.heard(1)[0] == ({"id": task.id, "attach": index} if index else {"id": task.id, "function": "send_mails"})
        peer.say(*story(task.id)[max(0, index - 2) : index], event)
        wait_until(lambda seq=index + 1: task.seq == seq)  # type: ignore[misc]
        peer.drop()
    assert list(task.events(5.0)) == story(task.id)


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013])
def test_after_these_close_codes_it_comes_back(scripted: Scripted, code: int) -> None:
    session = scripted.session()
    scripted.peer(1).close(code, "later")
    scripted.peer(2)
    wait_until(lambda: scripted.peer(1).over)
    assert scripted.peer(1).closed in (code, 1000), "the close is answered"
    session.submit("echo", id="after")
    assert scripted.peer(2).heard(1)[0]["id"] == "after"


def test_the_wait_grows_with_each_failure_up_to_its_ceiling_with_jitter_and_try_later_is_not_answered_at_once() -> None:
    for chance, share in ((0.0, 0.5), (1.0, 1.0)):
        backoff = Backoff(Pace(first_delay=2, max_delay=16), lambda chance=chance: chance)  # type: ignore[misc]
        assert [backoff.delay() for _ in range(5)] == [most * share for most in (2, 4, 8, 16, 16)]
        backoff.lost(1006, lasted=60.0)
        assert backoff.delay() == 2 * share
        backoff.lost(1013, lasted=60.0)
        assert backoff.delay() == 8 * share
        for _ in range(3):
            backoff.lost(1012, lasted=0.1)
            assert backoff.delay() == 2 * share


@pytest.mark.parametrize("code", [1008, 4001])
def test_a_refusal_for_good_ends_it_for_whoever_waits(scripted: Scripted, code: int) -> None:
    session = scripted.session()
    task = session.submit("echo")
    peer = scripted.peer(1)
    peer.heard(1)
    peer.close(code, "no token")
    with pytest.raises(Unavailable, match="no token"):
        task.result(5.0)
    with pytest.raises(Unavailable, match="no token"):
        session.describe(5.0)
    with pytest.raises(Unavailable, match="no token"):
        session.submit("echo")
    assert len(scripted.peers) == 1


def test_a_token_that_is_not_good_any_more_ends_it_and_says_so(scripted: Scripted) -> None:
    session = scripted.session(token="secret")
    task = session.submit("echo")
    peer = scripted.peer(1)
    peer.heard(1)
    peer.close(4401, "the token is not good any more")
    with pytest.raises(Unavailable, match="not good any more"):
        task.result(5.0)
    with pytest.raises(RemoteError, match="not good any more") as caught:
        session.describe(5.0)
    assert caught.value.code == "unauthorized"
    assert len(scripted.peers) == 1


def test_a_message_over_the_gateways_limit_is_refused_not_sent_for_ever(scripted: Scripted) -> None:
    session = scripted.session()
    small = session.submit("echo", {"n": 1})
    large = session.submit("echo", {"text": "x" * 1000})
    scripted.peer(1).heard(2)
    scripted.peer(1).close(1009, "message over 65536 bytes")
    with pytest.raises(RemoteError, match="65536") as caught:
        large.result(5.0)
    assert caught.value.code == "too_large"
    assert [message["id"] for message in scripted.peer(2).heard(1)] == [small.id]


def test_a_peer_that_has_gone_silent_is_noticed_by_a_ping_and_left(scripted: Scripted) -> None:
    task = scripted.session(replace(HASTE, quiet=0.05, patience=0.2)).submit("echo")
    first = scripted.peer(1)
    wait_until(lambda: first.pings >= 2, message="pings, answered")
    assert len(scripted.peers) == 1
    first.deaf = True
    assert scripted.peer(2).heard(1)[0]["id"] == task.id
    scripted.peer(2).say(*story(task.id))
    assert task.result(5.0) == {"sent": 2}


def test_what_the_lost_connection_may_have_swallowed_is_said_again(scripted: Scripted) -> None:
    session = scripted.session()
    task = session.submit("sleep", [9])
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(session.describe(5.0)))
    thread.start()
    scripted.peer(1).heard(2)
    scripted.peer(1).say(story(task.id)[0])
    wait_until(lambda: task.state == "accepted")
    scripted.peer(1).drop()
    task.cancel()
    second = scripted.peer(2)
    wait_until(lambda: {"id": task.id, "cancel": True} in second.received and {"describe": True} in second.received)
    assert {"id": task.id, "attach": 1} in second.received
    second.say({"describe": {"functions": [1]}})
    thread.join(5.0)
    assert answers == [{"functions": [1]}]


def test_a_task_that_was_heard_of_and_is_forgotten_is_not_run_again_unless_that_was_said_to_be_harmless(scripted: Scripted) -> None:
    session = scripted.session()
    careful = session.submit("charge")
    harmless = session.submit("report", idempotent=True)
    first = scripted.peer(1)
    first.say(story(careful.id)[0], story(harmless.id)[0])
    wait_until(lambda: careful.seq == 1 and harmless.seq == 1)
    first.drop()
    second = scripted.peer(2)
    second.heard(2)
    second.say(unknown(careful.id), unknown(harmless.id))
    with pytest.raises(RemoteError) as caught:
        careful.result(5.0)
    assert caught.value.code == "unknown_task"
    assert second.heard(3)[2] == {"id": harmless.id, "function": "report"}
    second.say(*story(harmless.id))
    assert harmless.result(5.0) == {"sent": 2}


def test_it_gives_up_when_it_was_told_to_and_says_what_is_not_known(scripted: Scripted) -> None:
    task = scripted.session(give_up=0.1).submit("echo")
    scripted.peer(1).heard(1)
    scripted.refuse()
    scripted.peer(1).drop()
    with pytest.raises(Unavailable, match=r"given up after 0\.1 s.*what becomes of .* is not known here"):
        task.result(5.0)


def test_after_close_nothing_is_tried_any_more_and_the_close_is_said(scripted: Scripted) -> None:
    session = scripted.session()
    task = session.submit("sleep")
    scripted.peer(1).heard(1)
    session.close()
    wait_until(lambda: scripted.peer(1).over)
    assert scripted.peer(1).closed == 1000
    with pytest.raises(Unavailable, match="is closed"):
        task.result(5.0)
    assert len(scripted.peers) == 1


def test_a_peer_that_does_not_answer_the_close_is_not_waited_for_long(scripted: Scripted) -> None:
    session = scripted.session()
    scripted.peer(1).deaf = True
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < 4
    wait_until(lambda: scripted.peer(1).closed == 1000)


def test_nobody_there_is_told_at_once() -> None:
    with pytest.raises(Unavailable, match=r"nobody answers at ws://127\.0\.0\.1:1/ws"):
        Session("ws://127.0.0.1:1/ws")
    for url in ("http://127.0.0.1:1/", "nonsense", "ws://", "unix:/nowhere/at/all.sock"):
        with pytest.raises(Unavailable, match="nobody answers"):
            Session(url)
