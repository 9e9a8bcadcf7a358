"""Tasks that say whose they are in everything that they say, so that what reaches somebody else is seen."""

from collections.abc import Generator

from tests.sample_tasks import effect, wait_for
from workers import current, progress, task


def say_whose(gate: str, whose: str) -> Generator[str, None, str]:
    """Say it, leave a line, wait for the gate, say it again. Run again where its process dies."""
    effect(whose)
    progress(current().attempt, note=whose)
    yield whose
    wait_for(gate)
    return whose


task(name="whose", retryable=True, attempts=4, backoff=0.05)(say_whose)
task(name="whose_in_process", run_in="process", retryable=True, attempts=4, backoff=0.05)(say_whose)
