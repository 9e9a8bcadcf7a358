"""What is said of a task: the table of transitions, requests read with suspicion, events that are read as they were written."""

import json
import re
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import errors, wire
from app.errors import BadRequest, Busy, Failed, HandoffError
from app.messages import (
    EVENTS,
    FINAL_EVENTS,
    FINAL_STATE,
    FINAL_STATES,
    MAX_DELAY,
    MAX_PRIORITY,
    NAMES,
    TRANSITIONS,
    Event,
    State,
    Submit,
    accepted_line,
    check_id,
    ending_line,
    event_body_line,
    event_line,
    final_line,
    new_id,
    read_event,
    read_placed,
    read_submit,
    readable_id,
    refusal,
)

IDS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(("id", "function", "args", "events", "priority", "delay", "on_disconnect", "attempt", "seq", "cancel", "other"))
PLAUSIBLE: st.SearchStrategy[Any] = st.sampled_from(
    (0, 1, -1, 1.5, "all", "final", "detach", "cancel", "a-b_c", "", {}, [], {"a": 1}, 10**400, 1e308, True, None)
)


# The table.


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_row_and_every_row_says_where_it_leads(state: State) -> None:
    row = TRANSITIONS[state]
    assert all(isinstance(event, Event) and isinstance(following, State) for event, following in row.items())


@pytest.mark.parametrize("state", sorted(FINAL_STATES, key=str))
def test_nothing_follows_a_final_state(state: State) -> None:
    assert TRANSITIONS[state] == {}


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL_STATES])
def test_every_other_state_can_end(state: State) -> None:
    reached, todo = set(), {state}
    while todo:
        one = todo.pop()
        reached.add(one)
        todo |= set(TRANSITIONS[one].values()) - reached
    assert reached >= FINAL_STATES


def test_every_state_is_reached_from_the_submit() -> None:
    reached = {State.QUEUED}
    while (more := reached | {following for state in reached for following in TRANSITIONS[state].values()}) != reached:
        reached = more
    assert reached == set(State)


@pytest.mark.parametrize("event", Event)
def test_every_event_may_come_in_some_state(event: Event) -> None:
    assert any(event in row for row in TRANSITIONS.values())


@pytest.mark.parametrize("event", Event)
def test_a_final_event_leads_to_its_own_final_state_and_no_other_event_does(event: Event) -> None:
    following = {row[event] for row in TRANSITIONS.values() if event in row}
    if event in FINAL_EVENTS:
        assert following == {FINAL_STATE[event]}
        assert FINAL_STATE[event].value == event.value
        assert FINAL_STATE[event] in FINAL_STATES
    else:
        assert not following & FINAL_STATES


def test_a_task_that_no_worker_has_can_only_be_accepted_sent_or_ended_from_here() -> None:
    assert set(TRANSITIONS[State.QUEUED]) == {Event.ACCEPTED, Event.DISPATCHED, Event.CANCELLED, Event.FAILED}
    assert set(TRANSITIONS[State.RETRYING]) == {Event.DUE, Event.CANCELLED, Event.FAILED}


def test_what_has_begun_is_never_queued_again_without_a_retry() -> None:
    assert State.QUEUED not in TRANSITIONS[State.RUNNING].values()
    assert [event for event, following in TRANSITIONS[State.DISPATCHED].items() if following is State.QUEUED] == [Event.RETURNED]


def test_the_names_on_the_wire_lead_back_to_their_events() -> None:
    assert {EVENTS[NAMES[event]] for event in Event} == set(Event)
    assert len(EVENTS) == len(Event)


# Submits.


@given(st.dictionaries(KEYS, PLAUSIBLE | JUNK), st.sampled_from(("echo", "", "x" * 1000, "مرحبا", 5, None, [], {})) | JUNK)
@example({"id": "a", "delay": float(MAX_DELAY), "priority": -MAX_PRIORITY}, "echo")
@example({"delay": 10**400}, "echo")
def test_any_object_with_a_function_is_a_submit_or_a_bad_request(message: dict[str, Any], function: Any) -> None:
    message["function"] = function
    before = json.dumps(message)
    try:
        submit = read_submit(message)
    except BadRequest:
        return
    assert json.dumps(message) == before
    assert isinstance(submit.function, str)
    assert submit.args is None or type(submit.args) in (dict, list)
    assert (check_id(submit.id) == message["id"]) if "id" in message else submit.id == ""
    assert type(submit.priority) is int
    assert abs(submit.priority) <= MAX_PRIORITY
    assert 0 <= submit.delay <= MAX_DELAY
    assert (submit.attempt, submit.seq) == (0, 0)
    assert message.keys() <= {"id", "function", "args", "events", "priority", "delay", "on_disconnect"}


def test_a_submit_says_what_was_asked_for() -> None:
    assert read_submit({"function": "f"}) == Submit("", "f", None)
    assert read_submit({"function": "f", "args": [1], "id": "x"}) == Submit("x", "f", [1])
    everything = {
        "id": "x",
        "function": "f",
        "args": {"a": 1},
        "events": "final",
        "priority": 7,
        "delay": 1.5,
        "on_disconnect": "cancel",
    }
    assert read_submit(everything) == Submit("x", "f", {"a": 1}, True, 7, 1.5, True)
    assert read_submit({"function": "f", "events": "all", "on_disconnect": "detach"}) == Submit("", "f", None)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a number for the function": ({"function": 1}, '"function"'),
    "a string for args": ({"args": "x"}, '"args"'),
    "a number for args": ({"args": 0}, '"args"'),
    "an empty id": ({"id": ""}, '"id"'),
    "a long id": ({"id": "x" * 65}, '"id"'),
    "an id with a line ending": ({"id": "x\n"}, '"id"'),
    "an id that is not ASCII": ({"id": "é"}, '"id"'),
    "an Arabic digit in an id": ({"id": "٣"}, '"id"'),
    "null for an id": ({"id": None}, '"id"'),
    "another kind of events": ({"events": "some"}, '"events"'),
    "true for events": ({"events": True}, '"events"'),
    "a priority past the bound": ({"priority": MAX_PRIORITY + 1}, '"priority"'),
    "true for a priority": ({"priority": True}, '"priority"'),
    "a broken priority": ({"priority": 1.5}, '"priority"'),
    "a delay before now": ({"delay": -1}, '"delay"'),
    "a delay past the bound": ({"delay": MAX_DELAY + 1}, '"delay"'),
    "a string for a delay": ({"delay": "5"}, '"delay"'),
    "another on_disconnect": ({"on_disconnect": "stay"}, '"on_disconnect"'),
    "a key that nobody knows": ({"prioriti": 1}, "'prioriti' is no part"),
    "what only a gateway says": ({"attempt": 1}, "'attempt' is no part"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_submit_is_refused_and_the_culprit_named(case: str) -> None:
    change, culprit = BAD[case]
    with pytest.raises(BadRequest, match=culprit):
        read_submit({"function": "echo", "args": {}, **change})


@pytest.mark.parametrize("task_id", ["a", "x" * 64, "A-z_0-9", "-", "123e4567-e89b-12d3-a456-426614174000"])
def test_ids_as_people_make_them_are_taken(task_id: str) -> None:
    assert check_id(task_id) == task_id


@given(st.dictionaries(KEYS, PLAUSIBLE | JUNK))
def test_what_a_gateway_places_is_read_or_refused(message: dict[str, Any]) -> None:
    message = {"function": "echo", "attempt": 1, "seq": 1, "dispatch": 1, **message}
    try:
        submit = read_placed(message)
    except BadRequest:
        return
    assert submit.attempt >= 1
    assert submit.seq >= 0
    assert check_id(submit.id)


def test_new_ids_are_ids_and_never_the_same() -> None:
    assert len({check_id(new_id()) for _ in range(1000)}) == 1000


# Events.


@given(
    IDS,
    st.sampled_from(Event),
    st.integers(0, 10**16 - 1),
    st.integers(0, 10**7 - 1),
    st.dictionaries(st.text(max_size=4).filter(lambda key: key not in {"id", "event", "seq", "attempt"}), JUNK, max_size=3),
)
def test_the_head_of_an_event_is_read_as_it_was_written(task_id: str, event: Event, seq: int, attempt: int, fields: dict[str, Any]) -> None:
    line = event_body_line(task_id, event, seq, attempt, wire.encode(fields)[1:-1])
    head = read_event(line)
    assert head is not None
    assert head.groups() == (task_id.encode(), event.value.encode(), b"%d" % seq, b"%d" % attempt)
    assert EVENTS[head.group(2)] is event
    assert wire.decode(line) == {"id": task_id, "event": event.value, "seq": seq, "attempt": attempt, **fields}
    assert list(wire.decode(line))[:4] == ["id", "event", "seq", "attempt"]


@given(IDS, st.sampled_from(sorted(FINAL_EVENTS, key=lambda event: event.value)), st.sampled_from((b"result", b"error")), JUNK)
def test_a_final_event_carries_its_result_or_error_as_it_is(task_id: str, event: Event, key: bytes, value: Any) -> None:
    line = final_line(task_id, event, 7, 2, key, wire.encode(value))
    head = read_event(line)
    assert head is not None
    assert head.groups() == (task_id.encode(), event.value.encode(), b"7", b"2")
    assert wire.decode(line) == {"id": task_id, "event": event.value, "seq": 7, "attempt": 2, key.decode(): value}


def test_other_lines_are_not_taken_for_events() -> None:
    for line in (b"", b"{}", refusal(Busy("later"), "a"), b'{"event":"started","id":"a","seq":1,"attempt":1}', accepted_line("a", 3)):
        assert read_event(line) is None


def test_an_event_without_fields_is_whole() -> None:
    line = event_line("a", Event.RETURNED, 1, 1)
    assert read_event(line)
    assert wire.decode(line) == {"id": "a", "event": "returned", "seq": 1, "attempt": 1}
    assert wire.decode(accepted_line("a", 3)) == {"id": "a", "event": "accepted", "seq": 1, "position": 3}
    ending = wire.decode(ending_line("a", Event.FAILED, 2, 1, Failed("oh", sent=3)))
    assert ending["error"] == {"code": "failed", "message": "oh", "sent": 3}


# Refusals.


@pytest.mark.parametrize(
    ("message", "task_id"),
    [({"id": "abc"}, "abc"), ({"id": "a b"}, ""), ({"id": 5}, ""), ({}, ""), (None, ""), ([{"id": "a"}], ""), ("a", "")],
)
def test_a_refusal_carries_the_id_where_one_was_readable(message: Any, task_id: str) -> None:
    assert readable_id(message) == task_id
    line = wire.decode(refusal(Busy("later", 2.5), readable_id(message)))
    assert line == ({"id": task_id} if task_id else {}) | {"error": {"code": "busy", "message": "later", "retry_after": 2.5}}


def test_every_error_of_ours_has_the_code_that_the_tree_in_the_docstring_gives_it() -> None:
    drawn = dict(re.findall(r"(\w+) {2,}([a-z_]+)$", errors.__doc__ or "", re.MULTILINE))
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HandoffError)]
    for kind in classes:
        if kind.__name__ in drawn:
            assert kind.code == drawn.pop(kind.__name__)
    assert not drawn
