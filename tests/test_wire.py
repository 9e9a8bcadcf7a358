"""JSON in and out of the Text codec: exact, finite, bounded. How a stream is cut into lines is in test_lines.py."""

import enum
import gc
import json
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app import wire
from app.errors import BadRequest

MOST_DIGITS = sys.get_int_max_str_digits()

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(("مرحبا بالعالم", "😀👩‍👩‍👧‍👦", "\u2028\u2029\ufeff", "\x00\x1f\x7f", "</script>\\\"'", "\ud7ff\ue000\U0010ffff"))
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=25)


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit and in type: 1, 1.0 and true are three things, and so are 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


def nested(depth: int, bracket: str = "[") -> bytes:
    """A text that is nested so deep."""
    opening, closing = ("[", "]") if bracket == "[" else ('{"a":', "}")
    return (opening * depth + "0" * (bracket != "[") + closing * depth).encode()


def refuse_constant(name: str) -> None:
    raise ValueError(name)


# What is exact.


@given(VALUES)
def test_any_value_comes_back_exactly_as_it_was(value: Any) -> None:
    assert same(wire.decode(wire.encode(value)), value)


@given(VALUES)
def test_what_others_write_is_read_exactly(value: Any) -> None:
    for ascii_only in (False, True):
        text = json.dumps(value, ensure_ascii=ascii_only, indent=1)
        assert same(wire.decode(text.encode()), value)
        assert same(wire.decode_text(text), value)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_an_encoded_message_is_one_line_however_strange_its_strings(message: dict[str, Any]) -> None:
    line = wire.encode_line(message)
    assert line.index(b"\n") == len(line) - 1
    assert b"\r" not in line


@given(st.integers(1, MOST_DIGITS), st.booleans())
@settings(max_examples=30)
def test_integers_of_any_size_that_python_reads_are_exact(digits: int, negative: bool) -> None:
    number = (-1 if negative else 1) * int("987654321"[: min(9, digits)] + "7" * max(0, digits - 9))
    assert wire.decode(wire.encode(number)) == number
    assert wire.decode(wire.encode({"n": [number]})) == {"n": [number]}


def test_an_integer_with_more_digits_is_refused_and_not_rounded() -> None:
    with pytest.raises(BadRequest, match="more digits"):
        wire.decode(b'{"n":' + b"1" * (MOST_DIGITS + 1) + b"}")
    with pytest.raises(ValueError, match="limit"):
        wire.encode(10**MOST_DIGITS)


@pytest.mark.parametrize("number", [0.1, 1e22, 1e23, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -0.0, 123456789012345680.0])
def test_floats_at_the_edges_are_exact(number: float) -> None:
    assert same(wire.decode(wire.encode(number)), number)


def test_subclasses_of_the_json_types_are_written_by_their_value() -> None:
    class Colour(enum.IntEnum):
        RED = 1

    class Sneaky(dict):
        def toDict(self) -> dict:  # noqa: N802 - the name that ujson would call
            return {"sneaked": True}

    assert wire.decode(wire.encode({"c": Colour.RED, "d": Sneaky(a=1), "o": OrderedDict(b=2), "t": (1, 2)})) == {
        "c": 1,
        "d": {"a": 1},
        "o": {"b": 2},
        "t": [1, 2],
    }
    assert wire.decode(wire.encode({1: "one", None: "none"})) == {"1": "one", "null": "none"}


# What is refused, on the way in.


@given(st.text(alphabet='[]{}:,"\\ \t\n\r0123456789.eE+-truefalsnNaIityud8c\x00\x1fé😀', max_size=30))
@settings(max_examples=250)
@example("1e999")
@example("-0")
@example('"\\ud83d\\ude00"')
@example('"\\\\ud800"')
@example("\u2028 1")
def test_it_accepts_just_what_the_strict_standard_decoder_does(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=refuse_constant)
        json.dumps(expected, ensure_ascii=False, allow_nan=False).encode()  # no infinity from 1e999, no lone surrogate
    except ValueError:
        with pytest.raises(BadRequest):
            wire.decode(text.encode())
    else:
        assert same(wire.decode(text.encode()), expected)


@given(st.binary(max_size=40))
@example(b'"\xed\xa0\x80"')
@example(b'"\xc0\x80"')
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_give_a_value_or_a_refusal(line: bytes) -> None:
    try:
        value = wire.decode(line)
    except BadRequest:
        return
    assert same(value, json.loads(line.decode()))


REFUSED = {
    "nothing": (b"", "empty line"),
    "white space": (b" \t\r", "empty line"),
    "NaN": (b'{"a":NaN}', "NaN"),
    "Infinity": (b"[Infinity]", "Infinity"),
    "minus Infinity": (b"-Infinity", "Infinity"),
    "1e999": (b'{"a":1e999}', "too large"),
    "-1e999": (b"-1e999", "too large"),
    "a lone high surrogate": (b'{"a":"\\ud800"}', "surrogate"),
    "a lone low surrogate": (b'["\\udc00x"]', "surrogate"),
    "a lone surrogate in a key": (b'{"\\udfff":1}', "surrogate"),
    "surrogates the wrong way round": (b'"\\udc00\\ud800"', "surrogate"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "UTF-8 at byte 1"),
    "bad UTF-8": (b'{"a":"\xff"}', "UTF-8 at byte 6"),
    "half a character": (b'"\xf0\x9f\x98', "UTF-8"),
    "a second value": (b"{} {}", "one object a line"),
    "text after the value": (b'{"a":1}x', "one object a line"),
    "a raw tab in a string": (b'"a\tb"', "[Cc]ontrol character"),
    "a raw NUL in a string": (b'"a\x00b"', "[Cc]ontrol character"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "bad JSON"),
    "a form feed around it": (b"\x0c{}", "bad JSON"),
    "a trailing comma": (b"[1,]", "bad JSON"),
    "a leading zero": (b"01", "one object a line"),
    "a lone minus": (b"-", "bad JSON"),
    "a string without an end": (b'{"a":"b', "bad JSON"),
    "single quotes": (b"{'a':1}", "bad JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_what_is_wrong(case: str) -> None:
    line, reason = REFUSED[case]
    with pytest.raises(BadRequest, match=reason):
        wire.decode(line)


@pytest.mark.parametrize("bracket", ["[", "{"])
def test_nesting_of_32_is_read_and_33_refused(bracket: str) -> None:
    assert wire.decode(nested(wire.MAX_DEPTH, bracket)) is not None
    for depth in (wire.MAX_DEPTH + 1, 1000, 100_000):
        with pytest.raises(BadRequest, match="nested deeper than 32"):
            wire.decode(nested(depth, bracket))


def test_brackets_beside_each_other_or_within_strings_are_not_depth() -> None:
    assert len(wire.decode(b"[" + b",".join([b"[]"] * 1000) + b"]")) == 1000
    texts = ["[" * 100, '"' + "[{" * 50, "\\" * 33 + "[" * 40, '\\"' * 40 + "{" * 40]
    assert wire.decode(json.dumps(texts).encode()) == texts


def test_a_lone_surrogate_is_found_beside_whatever_else_is_there() -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        wire.decode(b'{"n":' + b"9" * 4000 + b',"f":1e-300,"k":[null,true,{"deep":["\\ud800"]}]}')
    assert wire.decode(b'{"n":' + b"9" * 4000 + b',"s":"\\u00e9\\ud83d\\ude00"}')["s"] == "é😀"


# What is refused, on the way out.


def cycle() -> list[Any]:
    around: list[Any] = []
    around.append(around)
    return around


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), [-float("inf")], {"a": float("nan")}, "\ud800", {"\udfff": 1}, cycle(), {float("nan"): 1}],
    ids=["NaN", "infinity", "in a list", "in a dict", "surrogate", "surrogate key", "cycle", "NaN key"],
)
def test_what_no_json_text_can_say_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.encode(value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), {"a": [b""]}, {(1, 2): 3}, range(3)])
def test_what_json_has_no_type_for_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        wire.encode(value)


def test_what_is_written_can_be_read_back_in_the_message_that_it_stands_in() -> None:
    deep = json.loads(nested(wire.MAX_DEPTH - 1))
    assert wire.decode(b'{"result":%b}' % wire.encode(deep, wire.MAX_DEPTH - 1)) == {"result": deep}
    with pytest.raises(ValueError, match="nested deeper than 31"):
        wire.encode([deep], wire.MAX_DEPTH - 1)
    assert wire.decode(wire.encode([deep])) == [deep]
    for too_deep in ([[deep]], {"a": {"b": deep}}, json.loads(nested(400))):
        with pytest.raises(ValueError, match="nested"):
            wire.encode(too_deep)


# Linear time: ten times as much may take fifty times as long, on a machine that does other things too (a hundred, were it quadratic).

PATHOLOGICAL: dict[str, Callable[[int], bytes]] = {
    "quotes and no end": lambda size: b'["' + b'\\"' * size + b"[" * 40,
    "many brackets in a string": lambda size: b'["' + b"[" * size,
    "strings that open again and again": lambda size: b'"[' * size,
    "backslashes": lambda size: b'["' + b"\\" * size + b"{" * 40,
    "open brackets": lambda size: b"[" * size,
    "shallow brackets": lambda size: b"[" + b"[]," * size + b"[]]",
    "white space": lambda size: b" " * size + b"x",
    "digits after the point": lambda size: b"1." + b"3" * size,
    "escapes": lambda size: b'["' + b"\\u0041" * size + b'"]',
}


def seconds_of(line: bytes) -> float:
    """The best of three, which is the one that nobody disturbed."""
    best = math.inf
    gc.disable()  # what it costs to look through all lists that there are is not ours
    for _ in range(3):
        began = time.perf_counter()
        with suppress(BadRequest):
            wire.decode(line)
        best = min(best, time.perf_counter() - began)
    gc.enable()
    return best


@pytest.mark.parametrize("case", PATHOLOGICAL)
def test_decoding_takes_linear_time_whatever_is_sent(case: str) -> None:
    make = PATHOLOGICAL[case]
    assert seconds_of(make(100_000)) < 50 * seconds_of(make(10_000)) + 0.01
