"""The fair queue against a model that keeps a plain list: nothing lost, nothing twice, nobody waits where there is a place."""

from collections import Counter
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app import fairness
from app.fairness import FairQueue
from tests.queueing import Job, Places, drop


class Queueing(RuleBasedStateMachine):
    """Pushes, cancels, ends and fills in any order; the model is a list, searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.often = patch.object(fairness, "MOST_DROPPED", 1)
        self.often.start()  # what was cancelled is swept out at every other turn
        self.queue = FairQueue()
        self.places = Places(3, a=1, b=2)
        self.waits: list[Job] = []
        self.ever: list[Job] = []
        self.placed: list[Job] = []

    @rule(lane=st.integers(0, 3), function=st.sampled_from("abcd"), priority=st.integers(-1, 1))
    def push(self, lane: int, function: str, priority: int) -> None:
        job = Job(lane, function, priority)
        self.queue.push(job)
        self.waits.append(job)
        self.ever.append(job)

    @precondition(lambda self: self.waits)
    @rule(number=st.integers(0, 1000))
    def cancel(self, number: int) -> None:
        drop(self.queue, self.waits.pop(number % len(self.waits)))

    @precondition(lambda self: self.places.running)
    @rule(number=st.integers(0, 1000))
    def end(self, number: int) -> None:
        self.places.end(number % len(self.places.running))

    @precondition(lambda self: self.places.running)
    @rule(number=st.integers(0, 1000))
    def put_back(self, number: int) -> None:
        job = self.places.running.pop(number % len(self.places.running))
        self.placed.remove(job)
        self.queue.push(job)
        self.waits.append(job)

    @rule()
    def fill(self) -> None:
        for job in self.places.fill(self.queue):
            assert job.queued, "a cancelled one was given a place"
            self.waits.remove(job)  # fails where it did not wait, or had gone already
            self.placed.append(job)
            better = [mine for mine in self.waits if mine.lane == job.lane and mine.function == job.function]
            assert all((-job.priority, job.order) < (-mine.priority, mine.order) for mine in better)
        left = [job for job in self.waits if self.places.free(job.function) > 0]
        assert not left, "somebody waits although there is a place"

    @invariant()
    def the_size_is_exact(self) -> None:
        assert self.queue.size == len(self.waits)

    def teardown(self) -> None:
        self.often.stop()
        self.fill()
        while self.places.running:
            self.end(0)
            self.fill()
        cancelled = [job for job in self.ever if not job.queued]
        assert self.queue.size == 0
        assert Counter(map(id, self.placed + cancelled)) == Counter(map(id, self.ever)), "each goes once"


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
