"""The rows of faults of a server that is stopped, restarted and supervised, small. Apart from the others, so that both run side by side."""

import pytest

from tests.rows import play

ROWS = ("term-under-load", "supervisord-restart", "supervisord-split-kills", "broken-module")


@pytest.mark.parametrize("row", ROWS)
def test_a_fault_is_survived_and_the_ledger_adds_up(row: str) -> None:
    play(row)
