"""What a worker keeps for a gateway, against a gateway that journals what it hears: nothing lost, nothing twice, nothing kept for ever."""

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app import wire
from app.errors import Busy
from app.messages import Event, State, event_line
from workers import claims, dispatches
from workers.attempt import Attempt
from workers.claims import Claimant, Claimants
from workers.registry import Registry

SPEC = Registry().add(lambda: None, "nothing")


class Lines:
    """An outbox of which the lines can be read later, or be lost with the connection."""

    unsent = 0

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []

    def put(self, data: bytes) -> None:
        self.waiting.append(wire.decode(data))

    def flush(self) -> None:
        """Nothing is held back here."""


class Claiming(RuleBasedStateMachine):
    """Events, acknowledgements, lost and taken-over connections, in any order. `kept` is what the gateway has in its journal."""

    def __init__(self) -> None:
        super().__init__()
        self.claimant = Claimant("journal", 0)
        self.outbox: Lines | None = None
        self.unacknowledged = 0
        self.attempts: dict[str, Attempt] = {}
        self.kept: dict[str, list[int]] = {}
        self.over: set[str] = set()
        self.connect()

    @precondition(lambda self: self.outbox is not None)
    @rule(seq=st.integers(0, 3))
    def submit(self, seq: int) -> None:
        attempt = Attempt(SPEC, f"t{len(self.attempts)}", (), {}, self.claimant)
        attempt.seq, attempt.state = seq, State.RUNNING
        self.attempts[attempt.id] = attempt
        self.kept[attempt.id] = [seq]
        self.claimant.hold(attempt)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 1000), final=st.booleans())
    def say(self, number: int, final: bool) -> None:
        attempt = self.running[number % len(self.running)]
        attempt.seq += 1
        if final:
            attempt.state = State.SUCCEEDED
            self.claimant.final(attempt, Event.SUCCEEDED, b"result", b"1")
        else:
            self.claimant.event(attempt, event_line(attempt.id, Event.PROGRESS, attempt.seq, 1, done=1))

    @property
    def running(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts.values() if attempt.state is State.RUNNING]

    @precondition(lambda self: self.outbox is not None)
    @rule(number=st.integers(1, 5))
    def hear(self, number: int) -> None:
        """The gateway reads some lines, and journals them; what it knows already, it refuses."""
        assert self.outbox is not None
        heard, self.outbox.waiting = self.outbox.waiting[:number], self.outbox.waiting[number:]
        for line in heard:
            assert "event" in line, "the worker does not know a task of which the gateway has no end"
            assert line["seq"] == self.kept[line["id"]][-1] + 1, "lost, or said twice"
            self.kept[line["id"]].append(line["seq"])
            self.unacknowledged += 1
            if line["event"] == "succeeded":
                self.over.add(line["id"])

    @precondition(lambda self: self.outbox is not None and self.unacknowledged)
    @rule(number=st.integers(1, 5))
    def acknowledge(self, number: int) -> None:
        number = min(number, self.unacknowledged)
        self.unacknowledged -= number
        self.claimant.acknowledge(self.outbox, number)  # type: ignore[arg-type]

    @precondition(lambda self: self.outbox is not None)
    @rule()
    def lose(self) -> None:
        """With all that was on its way."""
        self.claimant.lose(self.outbox)  # type: ignore[arg-type]
        self.outbox = None

    @precondition(lambda self: self.outbox is None)
    @rule()
    def connect(self) -> None:
        self.take_over()

    @rule()
    def take_over(self) -> None:
        """A new connection; the worker hears of the end of the old one later, or has done already."""
        old, self.outbox = self.outbox, Lines()
        self.unacknowledged = 0
        listed = [(task_id, 1, seen[-1], 0) for task_id, seen in self.kept.items() if task_id not in self.over]
        self.claimant.attach(self.outbox, listed)  # type: ignore[arg-type]
        if old is not None:
            self.claimant.acknowledge(old, 3)  # type: ignore[arg-type]
            self.claimant.lose(old)  # type: ignore[arg-type]

    @invariant()
    def what_is_kept_ends_with_the_last_that_was_said(self) -> None:
        for attempt in self.claimant.attempts.values():
            numbers = [wire.decode(line)["seq"] for line in attempt.lines]
            assert numbers == list(range(attempt.seq - len(numbers) + 1, attempt.seq + 1))

    def teardown(self) -> None:
        self.take_over()
        for _ in range(len(self.running)):
            self.say(0, True)
        self.hear(1 << 30)
        if self.unacknowledged:
            self.acknowledge(1 << 30)
        for task_id, attempt in self.attempts.items():
            assert self.kept[task_id] == list(range(self.kept[task_id][0], attempt.seq + 1))
            assert task_id in self.over
        assert not self.claimant.attempts, "what is over and acknowledged is forgotten"


TestClaiming = Claiming.TestCase
TestClaiming.settings = settings(max_examples=70, stateful_step_count=40, deadline=None)


# What is kept while nobody is there.


def lost_claimant(**sizes: int) -> tuple[Claimant, dict[str, Attempt]]:
    """One whose connection was lost, with tasks that have said so many bytes, in this order."""
    claimant, outbox = Claimant("journal", 0), Lines()
    claimant.attach(outbox, [])  # type: ignore[arg-type]
    attempts = {}
    for task_id in sizes:
        attempts[task_id] = attempt = Attempt(SPEC, task_id, (), {}, claimant)
        attempt.state = State.RUNNING
        claimant.hold(attempt)
    claimant.lose(outbox)  # type: ignore[arg-type]
    for task_id, size in sizes.items():
        talk(claimant, attempts[task_id], size)
    return claimant, attempts


def talk(claimant: Claimant, attempt: Attempt, size: int, final: bool = False) -> None:
    """Say that much."""
    attempt.seq += 1
    if final:
        attempt.state = State.SUCCEEDED
        claimant.final(attempt, Event.SUCCEEDED, b"result", b'"%b"' % (b"x" * size))
    else:
        claimant.event(attempt, event_line(attempt.id, Event.OUTPUT, attempt.seq, 1, value="x" * size))


def said_again(claimant: Claimant, *task_ids: str) -> list[tuple[str, int | None]]:
    """What a gateway that comes back is told: ids and numbers; no number where the task is not known."""
    outbox = Lines()
    claimant.attach(outbox, [(task_id, 1, 0, 0) for task_id in task_ids])  # type: ignore[arg-type]
    return [(line["id"], line.get("seq")) for line in outbox.waiting]


def test_within_the_bound_everything_is_kept() -> None:
    claimant, attempts = lost_claimant(a=1000, b=1000)
    talk(claimant, attempts["a"], 10, final=True)
    assert said_again(claimant, "a", "b") == [("a", 1), ("a", 2), ("b", 1)]


def test_past_the_bound_what_was_said_on_the_way_goes_first_and_of_those_who_said_most() -> None:
    with patch.object(claims, "KEPT_BYTES", 10_000):
        claimant, attempts = lost_claimant(small=500, large=6000, other=1000)
        talk(claimant, attempts["small"], 10, final=True)
        talk(claimant, attempts["large"], 6000)
        assert said_again(claimant, "small", "large", "other") == [("small", 1), ("small", 2), ("other", 1)]
        assert attempts["large"].lines == []


def test_past_the_bound_with_ends_alone_the_oldest_tasks_are_forgotten() -> None:
    with patch.object(claims, "KEPT_BYTES", 10_000):
        claimant, attempts = lost_claimant(a=10, b=10, c=10)
        for task_id in "abc":
            talk(claimant, attempts[task_id], 4000, final=True)
        assert said_again(claimant, "a", "b", "c") == [("a", None), ("b", 2), ("c", 2)]


def test_what_was_not_acknowledged_when_the_connection_was_lost_counts_too() -> None:
    with patch.object(claims, "KEPT_BYTES", 10_000):
        claimant, outbox = Claimant("journal", 0), Lines()
        claimant.attach(outbox, [])  # type: ignore[arg-type]
        attempt = Attempt(SPEC, "a", (), {}, claimant)
        attempt.state = State.RUNNING
        claimant.hold(attempt)
        for _ in range(20):
            talk(claimant, attempt, 1000)
        claimant.lose(outbox)  # type: ignore[arg-type]
        assert attempt.lines == []
        talk(claimant, attempt, 10, final=True)
        assert said_again(claimant, "a") == [("a", 21)]


def test_after_its_time_a_gateway_is_forgotten_but_for_what_runs() -> None:
    claimant, attempts = lost_claimant(runs=100, over=100)
    talk(claimant, attempts["over"], 10, final=True)
    assert not claimant.expire()
    assert len(attempts["over"].lines) == 2
    with patch.object(claims, "KEPT_FOR", -1.0):
        assert not claimant.expire(), "one of its tasks runs"
        assert list(claimant.attempts) == [("runs", 1)]
        talk(claimant, attempts["runs"], 10, final=True)
        assert claimant.expire()
    assert said_again(claimant, "runs", "over") == [("runs", None), ("over", None)]


def test_a_gateway_that_is_there_is_not_forgotten() -> None:
    claimant = Claimant("journal", 0)
    claimant.attach(Lines(), [])  # type: ignore[arg-type]
    with patch.object(claims, "KEPT_FOR", -1.0):
        assert not claimant.expire()


# What is claimed and not here.


def told(claimant: Claimant, *claims: tuple[str, int, int, int]) -> list[str]:
    """Of each claim, what it is told: an event, or the code of a refusal."""
    outbox = Lines()
    claimant.attach(outbox, list(claims))  # type: ignore[arg-type]
    return [line["event"] if "event" in line else line["error"]["code"] for line in outbox.waiting]


def test_what_never_came_is_returned_and_what_may_have_run_is_not_known() -> None:
    claimant = Claimant("journal", -1)
    assert told(claimant, ("a", 1, 1, 0)) == ["returned"], "nothing has come from this gateway"
    claimant.dispatches.add(100)
    claimant.dispatches.add(98)
    assert told(claimant, ("d", 1, 1, 100), ("b", 1, 1, 101), ("c", 1, 1, 98)) == ["unknown_task", "returned", "unknown_task"]
    assert told(claimant, ("e", 1, 1, 99)) == ["returned"], "it was overtaken, and lost on its way"


def test_of_what_is_older_than_what_is_remembered_nobody_is_told_that_it_never_came() -> None:
    claimant = Claimant("journal", -1)
    with patch.object(dispatches, "MOST_REMEMBERED", 3):
        for number in (1, 5, 3, 7, 9):
            claimant.dispatches.add(number)
    claims = [(str(number), 1, 1, number) for number in range(1, 11)]
    wanted = ["unknown_task"] * 5 + ["returned", "unknown_task", "returned", "unknown_task", "returned"]
    assert told(claimant, *claims) == wanted, "1 and 5 are forgotten; 3, 7 and 9 are remembered"


def test_what_never_came_is_returned_again_after_other_tasks_have_come() -> None:
    """A gateway that is told so may be killed before its journal has it."""
    claimant = Claimant("journal", 100)
    assert told(claimant, ("a", 1, 1, 101)) == ["returned"]
    claimant.dispatches.add(200)
    assert told(claimant, ("a", 1, 1, 101)) == ["returned"]


def test_what_was_sent_back_unbegun_is_returned_again_until_it_is_held() -> None:
    claimant = Claimant("journal", 100)
    claimant.has_returned("a", 1)
    assert told(claimant, ("a", 1, 1, 50)) == ["returned"]
    assert told(claimant, ("a", 2, 1, 50)) == ["unknown_task"], "of another attempt nothing was sent back"
    attempt = Attempt(SPEC, "a", (), {}, claimant)
    claimant.hold(attempt)
    claimant.attempts.clear()
    assert told(claimant, ("a", 1, 1, 50)) == ["unknown_task"]


def test_what_was_sent_back_is_remembered_within_bounds() -> None:
    claimant = Claimant("journal", 100)
    with patch.object(claims, "MOST_RETURNED", 3):
        for task_id in "abcd":
            claimant.has_returned(task_id, 1)
    assert told(claimant, *((task_id, 1, 1, 50) for task_id in "abcd")) == ["unknown_task", "returned", "returned", "returned"]


def test_once_a_gateway_was_forgotten_nobody_new_is_told_that_nothing_came() -> None:
    known = Claimants()
    with patch.object(claims, "MOST_JOURNALS", 2), patch.object(claims, "KEPT_FOR", -1.0):
        first = known.of("first")
        assert known.of("first") is first
        known.of("second")
        assert told(known.of("third"), ("a", 1, 1, 1)) == ["unknown_task"]
        assert known.of("first") is not first


def test_gateways_that_are_there_are_not_forgotten_for_new_ones() -> None:
    known = Claimants()
    with patch.object(claims, "MOST_JOURNALS", 1), patch.object(claims, "KEPT_FOR", -1.0):
        known.of("first").attach(Lines(), [])  # type: ignore[arg-type]
        with pytest.raises(Busy):
            known.of("second")


@pytest.mark.parametrize("sent", [True, False])
def test_a_report_is_refused_only_where_its_gateway_could_not_have_heard_it(sent: bool, caplog: pytest.LogCaptureFixture) -> None:
    """At a reload the last acknowledgements are lost with the connection, and that is no alert."""
    claimant, before = Claimant("journal", 0), Lines()
    claimant.attach(before, [])  # type: ignore[arg-type]
    attempt = Attempt(SPEC, "t1", (), {}, claimant)
    claimant.hold(attempt)
    if not sent:
        claimant.lose(before)  # type: ignore[arg-type]
    attempt.seq, attempt.state = 1, State.SUCCEEDED
    claimant.final(attempt, Event.SUCCEEDED, b"result", b"1")
    claimant.attach(Lines(), [])  # type: ignore[arg-type]
    assert not claimant.attempts
    assert [record.levelname for record in caplog.records] == ([] if sent else ["WARNING"])
