"""Types of the catalogue as JSON Schema: whatever a worker takes passes here, and what passes here is what the schema says."""

import itertools
from collections.abc import Callable
from typing import Any, Literal

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadArguments
from app.gateway.schemas import Arguments, mismatch, schema_of
from workers.binding import binder_of


def arguments(function: Callable[..., Any]) -> Arguments:
    return Arguments([parameter.describe() for parameter in binder_of(function).parameters])


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("str", {"type": "string"}),
        ("None", {"type": "null"}),
        ("list[str] | None", {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}),
        ("dict[str, int]", {"type": "object", "additionalProperties": {"type": "integer"}}),
        ("tuple[float, ...]", {"type": "array", "items": {"type": "number"}}),
        (
            "tuple[int, str]",
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        ),
        ("Literal['a', 1, None]", {"enum": ["a", 1, None]}),
        ("int | any", {}),
        ("any", {}),
        ("datetime.datetime", {}),
        ("list[Thing]", {}),
        ("Literal[b'x']", {}),
        ("print('x')", {}),
        ("list[", {}),
        ("list[" * 400 + "]" * 400, {}),
        ("list[" * 20 + "int" + "]" * 20, {}),
        ("", {}),
        ("\0", {}),
    ],
)
def test_a_type_is_a_schema_or_takes_everything(text: str, schema: Any) -> None:
    assert schema_of(text) == schema


TEXTS = (
    "str",
    "int",
    "float",
    "bool",
    "None",
    "any",
    "list",
    "dict[str, int]",
    "tuple[float, ...]",
    "tuple[int, str]",
    "list[str] | None",
    "Literal['a', 1, True, None]",
    "list[dict[str, tuple[int, Literal['a']]] | str] | float",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from((0.0, 1.0, 1.5)) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


@pytest.mark.parametrize("text", TEXTS)
@given(value=JSON)
def test_what_fits_is_what_json_schema_says(text: str, value: Any) -> None:
    schema = schema_of(text)
    assert (mismatch(schema, value, "args") == "") == jsonschema_rs.is_valid(schema, value)


def anything(**named: Any) -> None: ...


def mixed(a: int, b: float = 0.5, *rest: str, flag: bool = False, **others: list[int]) -> None: ...


def keyword(from_: str, to: list[str]) -> None: ...


def choice(kind: Literal["a", 1], where: tuple[int, str] | None = None) -> None: ...


VALUES: tuple[Any, ...] = (None, True, 1, 1.5, "a", "b", [], [1], [1, "x"], ["x"], {}, {"a": 1}, {"a": "x"})


@pytest.mark.parametrize("function", [anything, mixed, keyword, choice])
def test_what_a_worker_takes_passes_and_what_it_refuses_mostly_does_not(function: Callable[..., Any]) -> None:
    """Which parameters can only be given by name, the catalogue does not say: there the worker has the last word."""
    bind, check = binder_of(function).bind, arguments(function).check
    names = ("a", "b", "from_", "from", "to", "kind", "where", "flag", "x")
    for first, second in itertools.product(VALUES, VALUES):
        shapes: list[Any] = [None, [first], [first, second], [first, 0.5, second]]
        shapes += [{one: first, other: second} for one, other in itertools.permutations(names, 2)]
        for shape in shapes:
            assert _passes(check, shape) or not _passes(bind, shape), shape
            assert function in (mixed, keyword) or _passes(bind, shape) == _passes(check, shape), shape


def _passes(check: Callable[[Any], object], args: Any) -> bool:
    try:
        check(args)
    except BadArguments:
        return False
    return True


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (None, '"to" is missing in args'),
        ({"to": 1}, "args.to wants an array"),
        ({"to": ["a", 1]}, "args.to[1] wants a string"),
        ({"to": [], "too": 1}, "'too' is no argument; there are to, note"),
        ({"to": [], "note": 1}, "args.note wants a string or null"),
        ([], "args wants 1 values at least"),
        ([[], "", 3], "args wants 2 values at most"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(args: Any, message: str) -> None:
    def send(to: list[str], note: str | None = None) -> None: ...

    with pytest.raises(BadArguments) as caught:
        arguments(send).check(args)
    assert caught.value.message == message


def test_a_whole_number_with_a_point_is_an_integer_as_json_schema_has_it() -> None:
    assert mismatch({"type": "integer"}, 5.0, "args") == ""
    assert mismatch({"type": "integer"}, 5.5, "args") == "args wants an integer"
    assert mismatch({"type": "integer"}, True, "args") == "args wants an integer"
