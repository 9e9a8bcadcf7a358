"""A task for the tests of the command line: it stands still in the middle."""

from tests.sample_tasks import wait_for
from workers import progress, task


@task
def stops_half_way(gate: str) -> None:
    """Tell of some progress, then wait for the gate."""
    progress(3, 10, "half")
    wait_for(gate)
