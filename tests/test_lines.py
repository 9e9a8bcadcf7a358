"""How a stream of bytes is cut into lines: the same however it arrives, within the limit, in linear time."""

import gc
import itertools
import sys
import time
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wire import LineBuffer

LIMIT = 8
STREAMS = st.lists(st.sampled_from((b"a", b"bc", b"\r", b"\n", b"\r\n", b"{}\n", b"12345678", b"x" * 20)), max_size=25).map(b"".join)


def fed(stream: bytes, cuts: list[int], limit: int = LIMIT) -> tuple[list[bytes], LineBuffer]:
    """All lines of a stream that arrives in pieces."""
    buffer = LineBuffer(limit)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    return [line for start, end in itertools.pairwise(bounds) for line in buffer.feed(stream[start:end])], buffer


def expected(stream: bytes, limit: int = LIMIT) -> tuple[list[bytes], bool]:
    """The same, naively; and whether a line was too long."""
    *whole, rest = [line.removesuffix(b"\r") for line in stream.split(b"\n")]
    for number, line in enumerate(whole):
        if len(line) > limit:
            return whole[:number], True
    return whole, len(rest) > limit


@given(STREAMS, st.lists(st.integers(0, 200), max_size=20))
def test_the_lines_are_the_same_however_the_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    lines, buffer = fed(stream, cuts)
    assert lines == expected(stream)[0]
    one_by_one, byte_buffer = fed(stream, list(range(len(stream))))
    assert one_by_one == lines
    assert byte_buffer.overflowed == buffer.overflowed


@given(STREAMS, st.lists(st.integers(0, 200), max_size=20))
def test_a_line_past_the_limit_is_found_before_the_next_line(stream: bytes, cuts: list[int]) -> None:
    lines, buffer = fed(stream + b"\nend\n", cuts)
    overflowed = expected(stream + b"\n")[1]
    assert buffer.overflowed == overflowed
    assert (b"end" in lines[-1:]) != overflowed


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("pieces", [1, 2, 1000])
def test_a_line_of_just_the_limit_passes_and_one_byte_more_does_not(ending: bytes, pieces: int) -> None:
    for size, passes in ((100, True), (101, False)):
        stream = b"x" * size + ending
        step = max(1, len(stream) // pieces)
        lines, buffer = fed(stream, list(range(0, len(stream), step)), 100)
        assert (lines == [b"x" * 100]) is passes
        assert buffer.overflowed is not passes


def test_only_the_line_that_has_begun_counts_towards_the_limit() -> None:
    stream = b"12345678\n1234\r\n" * 100
    lines, buffer = fed(stream, list(range(0, len(stream), 3)))
    assert lines == [b"12345678", b"1234"] * 100
    assert not buffer.overflowed


def test_a_carriage_return_within_a_line_stays() -> None:
    assert fed(b"a\rb\r\r\n\r\n", [])[0] == [b"a\rb\r", b""]


def test_a_line_without_an_end_is_given_up_once_it_is_past_the_limit() -> None:
    buffer = LineBuffer(100)
    assert buffer.feed(b"first\n" + b"x" * 102) == [b"first"]
    assert buffer.overflowed


def test_lines_before_one_that_is_too_long_are_delivered_and_none_after_it() -> None:
    buffer = LineBuffer(LIMIT)
    assert buffer.feed(b"one\ntwo\n" + b"x" * 20 + b"\nthree\n") == [b"one", b"two"]
    assert buffer.overflowed
    assert buffer.feed(b"four\n") == []
    assert buffer.take_rest() == b""


def test_what_came_after_the_last_line_can_be_had_once_nothing_more_will_come() -> None:
    buffer = LineBuffer(LIMIT)
    assert buffer.feed(b"one\ntw") == [b"one"]
    assert buffer.feed(b"o") == []
    assert buffer.take_rest() == b"two"
    assert buffer.take_rest() == b""


def calls_while_fed(pieces: list[bytes], limit: int) -> tuple[int, list[bytes]]:
    """How many calls, of Python and of C functions, feeding them takes; and the lines."""
    buffer, calls = LineBuffer(limit), 0
    lines: list[bytes] = []

    def count(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.disable()  # whoever is called when it collects would be counted
    sys.setprofile(count)
    try:
        for piece in pieces:
            lines += buffer.feed(piece)
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls, lines


def test_a_long_line_takes_as_many_steps_as_it_has_pieces() -> None:
    size = 1 << 18
    line = b"x" * size
    for pieces in (1, 16, 1024, size):
        step = size // pieces
        calls, lines = calls_while_fed([line[at : at + step] for at in range(0, size, step)] + [b"\n"], size)
        assert lines == [line]
        assert calls <= 10 * (pieces + 1)


def seconds_to_feed(size: int) -> float:
    """The best of three, for a line of that size in pieces of 16 bytes."""
    best = 1e9
    for _ in range(3):
        buffer, piece = LineBuffer(size), b"x" * 16
        began = time.perf_counter()
        for _ in range(size // 16):
            buffer.feed(piece)
        assert buffer.feed(b"\n") == [b"x" * size]
        best = min(best, time.perf_counter() - began)
    return best


def test_eight_times_the_line_takes_about_eight_times_as_long() -> None:
    """Were the pieces joined one by one, it would be 64 times."""
    assert seconds_to_feed(1 << 20) < 32 * seconds_to_feed(1 << 17) + 0.005
