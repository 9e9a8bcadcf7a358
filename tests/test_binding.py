"""Arguments from JSON reach a function as its signature says, or are refused with the parameter's name and no value."""

from __future__ import annotations

import functools
import inspect
import json
import math
import timeit
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadArguments, BadRequest
from workers.binding import Binder, binder_of

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

UserId = NewType("UserId", int)


class Movie(TypedDict):
    title: str


@dataclass
class Point:
    x: int


def call(function: Callable[..., Any], args: object) -> Any:
    positional, named = binder_of(function).bind(args)
    return function(*positional, **named)


def refusal(function: Callable[..., Any], args: object) -> tuple[str, str]:
    with pytest.raises(BadArguments) as caught:
        binder_of(function).bind(args)
    return caught.value.details.get("parameter", ""), caught.value.message


def mail(from_: str, to: list[str], contents: str = "", *, subject: str | None = None) -> list[Any]:
    return [from_, to, contents, subject]


def of_type(annotation: Any) -> Binder:
    def function(value):  # type: ignore[no-untyped-def]
        return value

    function.__annotations__["value"] = annotation
    return binder_of(function)


def test_an_object_gives_arguments_by_name_and_a_keyword_gets_its_underscore() -> None:
    assert call(mail, {"from": "a", "to": ["b"], "subject": "s"}) == ["a", ["b"], "", "s"]
    assert call(mail, {"from_": "a", "to": ["b"]}) == ["a", ["b"], "", None]


def test_an_array_gives_arguments_by_position() -> None:
    assert call(mail, ["a", ["b"], "c"]) == ["a", ["b"], "c", None]


@pytest.mark.parametrize("nothing", [None, {}, []])
def test_no_arguments_call_a_function_without_any(nothing: object) -> None:
    assert call(lambda: "called", nothing) == "called"


@pytest.mark.parametrize("other", [1, "a", True, 1.5])
def test_any_other_type_of_args_is_a_bad_request(other: object) -> None:
    with pytest.raises(BadRequest, match="object, an array or absent"):
        binder_of(mail).bind(other)


def test_what_is_missing_is_named_as_on_the_wire() -> None:
    assert refusal(mail, {"to": []}) == ("from", '"from" is missing; it must be a string')
    assert refusal(mail, ["a"]) == ("to", '"to" is missing; it must be an array')
    assert refusal(mail, None) == ("from", '"from" is missing; it must be a string')


def test_what_is_unexpected_is_named_with_the_nearest_name_or_those_there_are() -> None:
    assert refusal(mail, {"form": "a", "to": []}) == ("form", 'unexpected argument "form"; did you mean "from"?')
    assert refusal(mail, {"zzz": 1})[1] == 'unexpected argument "zzz"; there are "from", "to", "contents", "subject"'
    assert refusal(lambda: None, {"zzz": 1})[1] == 'unexpected argument "zzz"; there are none'


def test_a_name_of_any_length_is_refused_in_a_short_message() -> None:
    parameter, message = refusal(mail, {"x" * 60_000: 1})
    assert len(parameter) <= 100
    assert len(message) <= 200


def test_too_many_positional_arguments_are_counted() -> None:
    assert refusal(mail, ["a", [], "c", "d"])[1] == "too many arguments: at most 3 are taken, 4 came"


def test_the_same_argument_under_both_spellings_is_refused() -> None:
    assert refusal(mail, {"from": "a", "from_": "a", "to": []}) == ("from", '"from" and "from_" are the same argument; give one')


def test_an_element_is_named_by_where_it_is() -> None:
    assert refusal(mail, {"from": "a", "to": ["b", "c", "d", 4]}) == ("to[3]", '"to[3]" must be a string, not a number')
    assert refusal(mail, ["a", [None]]) == ("to[0]", '"to[0]" must be a string, not null')


def test_deep_inside_is_named_too() -> None:
    def function(table: dict[str, list[tuple[int, str]]]) -> None: ...

    assert refusal(function, {"table": {"a": [], "b": [[1, "x"], [2, 3]]}}) == (
        'table["b"][1][1]',
        '"table["b"][1][1]" must be a string, not a number',
    )


def test_no_value_is_ever_repeated() -> None:
    secret = "hunter2hunter2"
    cases: list[tuple[Callable[..., Any], Any]] = [
        (mail, {"from": "a", "to": secret}),
        (mail, {"from": "a", "to": [[secret]]}),
        (lambda: None, [secret]),
        (choose, {"colour": secret}),
    ]
    for function, args in cases:
        assert secret not in refusal(function, args)[1]


def choose(colour: Literal["red", "green", 3, None]) -> Any:
    return colour


ACCEPTED: list[tuple[Any, list[Any]]] = [
    (str, ["", "مرحبا", "🎉"]),
    (int, [0, -1, 10**40]),
    (float, [0, 1, 1.5, 10**300]),
    (bool, [True, False]),
    (None, [None]),
    (str | None, ["a", None]),
    (typing.Optional[int], [1, None]),  # noqa: UP045
    (int | list[str], [1, [], ["a"]]),
    (list, [[], [1, "a", None]]),
    (list[int], [[], [1, 2]]),
    (Sequence[str], [["a"]]),
    (Iterable[float], [[1, 1.5]]),
    (dict, [{}, {"a": 1}]),
    (dict[str, int], [{}, {"a": 1}]),
    (Mapping[str, list[int]], [{"a": [1]}]),
    (dict[str, Any], [{"a": object}]),
    (list[dict[str, str | None]], [[{"a": None, "b": "c"}]]),
    (Literal["a", 1, None], ["a", 1, None]),
    (UserId, [7]),
    (Annotated[int, "seconds"], [7]),
    (Any, [1, "a", None, [], {}]),
    (object, [1, "a", None, [], {}]),
    (Movie, [{"title": 1}, 5]),
    (Point, [{"x": 1}, 5]),
    (bytes, ["a"]),
    (int | Any, ["a"]),
    ("NoSuchName", [1, "a"]),
    ("list[NoSuchName]", [1]),
    ("int", [1]),
    ("this is no type (", [1]),
]

REFUSED: list[tuple[Any, Any, str]] = [
    (str, 1, "must be a string, not a number"),
    (str, None, "must be a string, not null"),
    (int, True, "must be an integer, not a boolean"),
    (int, 1.0, "must be an integer, not a number with a point or an exponent"),
    (int, "1", "must be an integer, not a string"),
    (float, True, "must be a number, not a boolean"),
    (float, "1", "must be a number, not a string"),
    (float, 10**400, "must be a number, not an integer too large for a double"),
    (bool, 1, "must be a boolean, not a number"),
    (None, 0, "must be null, not a number"),
    (str | None, 1, "must be a string or null, not a number"),
    (int | str, [], "must be an integer or a string, not an array"),
    (int | list[str], [1], "must be a string, not a number"),
    (list, {}, "must be an array, not an object"),
    (list[int], "12", "must be an array, not a string"),
    (list[int], [1, True], "must be an integer, not a boolean"),
    (Sequence[str], "abc", "must be an array, not a string"),
    (dict, [], "must be an object, not an array"),
    (dict[str, int], {"a": "b"}, "must be an integer, not a string"),
    (Mapping[str, int], [], "must be an object, not an array"),
    (tuple[int, str], [1], "must be an array of 2, not an array of 1"),
    (tuple[int, str], ["a", 1], "must be an integer, not a string"),
    (tuple[int, ...], [1, "a"], "must be an integer, not a string"),
    (tuple, {}, "must be an array, not an object"),
    (Literal["a", "b"], "c", 'must be one of "a", "b", not another string'),
    (Literal[1], True, "must be 1, not a boolean"),
    (Literal[1], 1.0, "must be 1, not a number"),
    (UserId, "7", "must be an integer, not a string"),
    (Annotated[int, "seconds"], "7", "must be an integer, not a string"),
    ("int", "7", "must be an integer, not a string"),
]


@pytest.mark.parametrize(("annotation", "values"), ACCEPTED, ids=lambda it: str(it)[:40])
def test_accepted_as_it_came(annotation: Any, values: list[Any]) -> None:
    binder = of_type(annotation)
    for value in values:
        assert binder.bind({"value": value}) == ((), {"value": value})
        assert binder.bind([value]) == ((value,), {})


@pytest.mark.parametrize(("annotation", "value", "message"), REFUSED, ids=lambda it: str(it)[:40])
def test_refused_with_what_is_wanted_and_what_came(annotation: Any, value: Any, message: str) -> None:
    for args in ({"value": value}, [value]):
        with pytest.raises(BadArguments, match=r'^"value') as caught:
            of_type(annotation).bind(args)
        assert caught.value.message.endswith(message)


def test_an_array_becomes_the_tuple_that_was_asked_for() -> None:
    assert of_type(tuple[int, ...]).bind([[1, 2]]) == (((1, 2),), {})
    assert of_type(list[tuple[str, int]]).bind({"value": [["a", 1]]}) == ((), {"value": [("a", 1)]})
    assert of_type(tuple).bind([[1, "a"]]) == (((1, "a"),), {})


def test_null_is_taken_where_the_default_is_none() -> None:
    def legacy(limit: int = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return limit

    assert call(legacy, {"limit": None}) is None
    assert refusal(legacy, {"limit": "a"})[1] == '"limit" must be an integer or null, not a string'


def test_a_name_for_type_checkers_only_leaves_its_parameter_unchecked_and_the_others_checked() -> None:
    def function(amount: OnlyForCheckers, count: int) -> Any:
        return [amount, count]

    assert call(function, {"amount": "1.10", "count": 1}) == ["1.10", 1]
    assert refusal(function, {"amount": "1.10", "count": "1"})[0] == "count"


def test_named_extras_come_as_they_are_and_are_checked() -> None:
    def anything(**named: Any) -> Any:
        return named

    def numbers(first: str, **named: float) -> Any:
        return [first, named]

    odd = {"from": 1, "from_": 2, "with space": 3, "": 4, "مرحبا": 5, "self": 6}
    assert call(anything, odd) == odd
    assert call(numbers, {"first": "a", "x": 1}) == ["a", {"x": 1}]
    assert refusal(numbers, {"first": "a", "x": "1"}) == ("x", '"x" must be a number, not a string')


def test_positional_extras_are_named_by_where_they_are() -> None:
    def total(first: int, *rest: int) -> int:
        return first + sum(rest)

    assert call(total, [1, 2, 3]) == 6
    assert call(total, {"first": 1}) == 1
    assert refusal(total, [1, 2, "3"]) == ("rest[1]", '"rest[1]" must be an integer, not a string')
    assert refusal(total, {"first": 1, "rest": [2]})[0] == "rest"


def test_positional_only_parameters_can_be_named_on_the_wire() -> None:
    def function(a: int, b: int = 2, /, c: int = 3, **more: int) -> Any:
        return [a, b, c, more]

    assert call(function, {"a": 1, "c": 9}) == [1, 2, 9, {}]
    assert call(function, {"b": 5, "a": 1, "d": 4}) == [1, 5, 3, {"d": 4}]
    assert refusal(function, {"b": 5})[0] == "a"


def test_a_parameter_that_only_has_a_name_cannot_come_by_position() -> None:
    def function(a: int, *, b: int) -> None: ...

    assert refusal(function, [1]) == ("b", '"b" can only be given by name; send args as an object')


def test_whatever_can_be_called_can_be_bound() -> None:
    class Service:
        def __init__(self, size: int = 1) -> None:
            self.size = size

        def __call__(self, value: int) -> int:
            return value + self.size

        def method(self, value: int) -> int:
            return value * 2

    @functools.wraps(mail)
    def wrapped(*args: Any, **named: Any) -> Any:
        return mail(*args, **named)

    assert call(Service(), {"value": 1}) == 2
    assert refusal(Service(), {"value": "1"})[0] == "value"
    assert call(Service().method, [4]) == 8
    assert call(Service, {"size": 3}).size == 3
    assert refusal(functools.partial(mail, "a"), {"to": [1]})[0] == "to[0]"
    assert call(wrapped, {"from": "a", "to": []}) == ["a", [], "", None]


def test_a_builtin_with_no_signature_takes_anything() -> None:
    with pytest.raises(ValueError, match="signature"):
        inspect.signature(max)
    assert call(max, [3, 9, 4]) == 9
    assert binder_of(max).bind({"a": 1}) == ((), {"a": 1})
    assert call(math.sqrt, [9]) == 3


def test_the_args_given_are_never_changed() -> None:
    args = {"from": "a", "to": ["b"]}
    binder_of(mail).bind(args)
    assert args == {"from": "a", "to": ["b"]}


def test_the_catalogue_names_parameters_as_the_wire_does() -> None:
    def function(from_: str, to: list[str], count: int | None = None, marker: Any = object(), *rest: int, **more: Any) -> None: ...  # noqa: B008

    entries = [parameter.describe() for parameter in binder_of(function).parameters]
    assert entries == [
        {"name": "from", "type": "str", "required": True},
        {"name": "to", "type": "list[str]", "required": True},
        {"name": "count", "type": "int | None", "required": False, "default": None},
        {"name": "marker", "type": "any", "required": False},
        {"name": "*rest", "type": "int", "required": False},
        {"name": "**more", "type": "any", "required": False},
    ]
    json.dumps(entries)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
some_annotations: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([str, int, float, bool, None, Any]),
    lambda inner: st.one_of(
        inner.map(lambda it: types.GenericAlias(list, (it,))),
        inner.map(lambda it: types.GenericAlias(dict, (str, it))),
        st.tuples(inner, inner).map(lambda pair: typing.Union[pair[0], pair[1]]),  # noqa: UP007
    ),
    max_leaves=4,
)


def fits(value: Any, annotation: Any) -> bool:
    """The rules once more, as plainly as can be."""
    if annotation is Any:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    if typing.get_origin(annotation) is typing.Union:
        return any(fits(value, member) for member in typing.get_args(annotation))
    if typing.get_origin(annotation) is list:
        return type(value) is list and all(fits(item, typing.get_args(annotation)[0]) for item in value)
    if typing.get_origin(annotation) is dict:
        return type(value) is dict and all(fits(item, typing.get_args(annotation)[1]) for item in value.values())
    return type(value) is annotation or (annotation is float and type(value) is int and abs(value) < 2**1023)


@given(some_annotations, json_values)
def test_exactly_what_fits_the_annotation_is_accepted(annotation: Any, value: Any) -> None:
    binder = of_type(annotation)
    if fits(value, annotation):
        assert binder.bind({"value": value}) == ((), {"value": value})
    else:
        with pytest.raises(BadArguments) as caught:
            binder.bind({"value": value})
        assert caught.value.details["parameter"].startswith("value")


@given(
    st.dictionaries(st.sampled_from(["from", "from_", "to", "contents", "subject", "other"]), json_values)
    | st.lists(json_values, max_size=5)
)
def test_what_is_bound_can_always_be_called_and_what_is_not_names_why(args: Any) -> None:
    try:
        positional, named = binder_of(mail).bind(args)
    except BadArguments as refused:
        assert refused.message  # noqa: PT017
    else:
        inspect.signature(mail).bind(*positional, **named)


@given(st.dictionaries(st.text(), json_values))
def test_a_function_of_anything_gets_exactly_what_came(args: dict[str, Any]) -> None:
    assert call(lambda **anything: anything, args) == args


def test_binding_costs_microseconds() -> None:
    def function(seconds: float, note: str = "") -> None: ...

    bind, args = binder_of(function).bind, {"seconds": 0.1, "note": "x"}
    assert (
        min(timeit.repeat(lambda: bind(args), number=2000, repeat=5)) / 2000 < 20e-6
    )  # about 0.5 µs; ten times the aim for a busy machine
