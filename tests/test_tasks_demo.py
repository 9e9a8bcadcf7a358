"""The tasks to try things out with, as plain functions; how they behave as tasks is tested through the server."""

import time

import pytest

from app.errors import BadArguments
from workers.registry import REGISTRY, Function
from workers.tasks.demo import countdown, echo, fail, primes, sleep


@pytest.fixture(autouse=True)
def loaded() -> None:
    REGISTRY.load()


def function(name: str) -> Function:
    return REGISTRY.get(name)


def test_echo_gives_back_whatever_it_got() -> None:
    anything = {"from": 1, "text": "مرحبا 🎉", "nested": {"a": [None, True, 1.5]}, "": 0}
    positional, named = function("echo").bind(anything)
    assert echo(*positional, **named) == anything


@pytest.mark.parametrize("seconds", [0.05, 0, -1])
def test_sleep_lasts_as_long_as_told(seconds: float) -> None:
    began = time.monotonic()
    assert sleep(seconds) == seconds
    assert time.monotonic() - began >= seconds
    assert function("sleep").bind([1])[0] == (1,)
    with pytest.raises(BadArguments, match="a number"):
        function("sleep").bind({"seconds": "1"})


def test_countdown_says_each_number_down_to_nought() -> None:
    assert list(countdown(3, interval=0)) == [3, 2, 1, 0]
    assert list(countdown(0)) == [0]
    assert list(countdown(-1)) == []
    assert function("countdown").is_generator


@pytest.mark.parametrize(("below", "count"), [(-5, 0), (0, 0), (2, 0), (3, 1), (4, 2), (10, 4), (12, 5), (100, 25), (100_000, 9592)])
def test_primes_counts_them(below: int, count: int) -> None:
    assert primes(below) == count


def test_primes_runs_in_a_process_and_bounds_its_memory() -> None:
    assert function("primes").options.run_in == "process"
    with pytest.raises(ValueError, match="at most"):
        primes(10**12)


def test_fail_raises_its_message() -> None:
    with pytest.raises(RuntimeError, match="بسبب"):
        fail("بسبب")
    with pytest.raises(RuntimeError, match="told to fail"):
        fail()
