"""Every row of the faults, small: 200 tasks and 3 kills, at named points. The long form, at random moments, is `python -m bench.faults`."""

import re

import pytest

from bench.faults.__main__ import ROWS
from bench.faults.disk import Skipped, trace_of_accepts
from tests import test_faults_service
from tests.rows import play

ELSEWHERE = frozenset(("attacks", "supervisord-split-restart", *test_faults_service.ROWS))
"""Rows that have tests of their own: the first in `tests/test_websocket.py` and the two of bad input, the second in
`tests/test_supervisord_split.py`."""


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ELSEWHERE])
def test_a_fault_is_survived_and_the_ledger_adds_up(row: str) -> None:
    play(row)


def test_no_accepted_leaves_before_a_sync_of_its_own() -> None:
    """As strace sees it: one task at a time, so that its `accepted` is the first that is said after the sync that it waited for."""
    try:
        trace = trace_of_accepts(30)
    except Skipped as skipped:
        pytest.skip(str(skipped))
    synced, accepted = False, 0
    for line in trace.splitlines():
        if re.search(r"f(data)?sync.*= 0$", line):
            synced = True
        elif r"\"event\":" in line:
            if r"\"event\":\"accepted\"" in line:
                accepted += 1
                assert synced, line
            synced = r"\"event\":\"succeeded\"" not in line and synced
    assert accepted == 30
