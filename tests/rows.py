"""Plays a row of the faults small, as the tests do: 200 tasks and 3 kills, at named points."""

import random

import pytest

from bench.faults.__main__ import ROWS
from bench.faults.disk import Skipped
from bench.faults.stage import Plan


def play(row: str) -> None:
    """It breaks no promise; skips the test where this machine cannot play it."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    try:
        accounts = ROWS[row](Plan(200, 3, seed, False))
    except Skipped as skipped:
        pytest.skip(str(skipped))
    print(*accounts.cells(), *accounts.remarks)
    assert accounts.broken == []
    assert accounts.accepted >= 200
    assert (accounts.lost, accounts.twice) == (0, [])
