"""Annotations as checks: what a parameter declares, made once into a check of what comes as JSON.

Checked are the annotations that JSON has a form for: str, int, float, bool, None, list, tuple, dict and their abstract kin, with what they
hold; unions, Literal, NewType, Annotated. Every other one (a class, a TypedDict, one that cannot be resolved) is left unchecked.
`int` is exact: neither true nor 1.0. `float` takes an integer, unless it is too large for a double. Where a tuple is asked for, the array
becomes one. Nothing here knows of functions or parameters.
"""

import inspect
import json
import types
import typing
from collections import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Check = Callable[[Any], Any]
"""Takes a value from JSON and gives what the function gets (nearly always the same object), or raises `Mismatch`."""

_ARRAYS = frozenset((list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable))
_OBJECTS = frozenset((dict, abc.Mapping, abc.MutableMapping))
_NONE = type(None)
_JSON_NAMES = {str: "a string", bool: "a boolean", _NONE: "null", list: "an array", tuple: "an array", dict: "an object"}
_DOUBLE_BITS = 1024  # every integer of fewer bits is within the range of a double
_UNCHECKED = object()


class Mismatch(Exception):
    """A value is not what is wanted; `path` tells where inside it, innermost first (`["[3]", '["cc"]']`)."""

    def __init__(self, wanted: str, came: str) -> None:
        super().__init__(wanted, came)
        self.wanted = wanted
        self.came = came
        self.path: list[str] = []


class Type(NamedTuple):
    """An annotation: its text in the catalogue; what it wants, in words; the class whose own instances pass unchecked; the check.

    No check means that everything passes.
    """

    text: str
    wanted: str
    exact: object
    check: Check | None


def json_name(value: object) -> str:
    """What JSON calls the type of a value, with its article."""
    for kind in type(value).__mro__:
        if kind in _JSON_NAMES:
            return _JSON_NAMES[kind]
    return "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}"


def short(text: str) -> str:
    """A name that came from outside, quoted, and cut to what fits in a message."""
    return json.dumps(text if len(text) <= 40 else text[:39] + "…", ensure_ascii=False)


def has_json_form(value: object) -> bool:
    """Whether JSON has a form for it, so that it may stand in the catalogue."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def takes(kind: Type, value: object) -> bool:
    """Whether a parameter of this type takes `value`."""
    try:
        return kind.check is None or kind.check(value) is value
    except Mismatch:
        return False


def type_of(annotation: Any) -> Type:
    """What is made of an annotation whose strings have been resolved."""
    supertype = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
    if supertype is not None:  # NewType, `type X = …`
        return type_of(supertype)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    kind = origin or annotation
    if kind is typing.Union or kind is types.UnionType:
        return union([type_of(member) for member in inner])
    if kind is typing.Literal:
        return _literal(inner)
    if kind is tuple:
        return _tuple(inner)
    if kind in _ARRAYS:
        return _array(type_of(inner[0]) if inner else ANY)
    if kind in _OBJECTS:
        return _object(type_of(inner[1]) if len(inner) == 2 else ANY)
    return _SCALARS.get(kind) or unchecked(annotation)


def union(members: Sequence[Type]) -> Type:
    """What takes whatever one of `members` takes; the first that does decides."""
    if any(member.check is None for member in members):
        return _unchecked(" | ".join(dict.fromkeys(member.text for member in members)))
    wanted = " or ".join(dict.fromkeys(member.wanted for member in members))
    checks = [member.check for member in members if member.check is not None]

    def check(value: Any) -> Any:
        inside = []
        for attempt in checks:
            try:
                return attempt(value)
            except Mismatch as mismatch:
                if mismatch.path:
                    inside.append(mismatch)
        if len(inside) == 1:  # the right kind of container: say what is wrong in it
            raise inside[0]
        raise Mismatch(wanted, json_name(value))

    exact = members[0].exact
    return Type(" | ".join(dict.fromkeys(member.text for member in members)), wanted, exact, check)


def unchecked(annotation: object) -> Type:
    """What takes everything, under the annotation's own text in the catalogue."""
    return _unchecked(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))


def _unchecked(text: str) -> Type:
    return Type(text, "a value", _UNCHECKED, None)


def _scalar(python_type: type, text: str) -> Type:
    wanted = _JSON_NAMES[python_type]

    def check(value: Any) -> Any:
        if isinstance(value, python_type):
            return value
        raise Mismatch(wanted, json_name(value))

    return Type(text, wanted, python_type, check)


def _integer(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Mismatch("an integer", "a number with a point or an exponent" if isinstance(value, float) else json_name(value))


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise Mismatch("a number", json_name(value))
    if value.bit_length() >= _DOUBLE_BITS:
        raise Mismatch("a number", "an integer too large for a double")
    return value


def _literal(choices: tuple[Any, ...]) -> Type:
    if not all(choice is None or type(choice) in (str, int, bool) for choice in choices):
        return _unchecked("any")
    texts = [json.dumps(choice, ensure_ascii=False) for choice in choices]
    wanted = texts[0] if len(texts) == 1 else f"one of {', '.join(texts)}"

    def check(value: Any) -> Any:
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return value
        raise Mismatch(wanted, "another string" if isinstance(value, str) else json_name(value))

    return Type(f"Literal[{', '.join(map(repr, choices))}]", wanted, _UNCHECKED, check)


def _array(item: Type) -> Type:
    if item.check is None:
        return _scalar(list, "list")
    one, exact = item.check, item.exact

    def check(value: Any) -> Any:
        if not isinstance(value, list):
            raise Mismatch("an array", json_name(value))
        for element in value:
            if element.__class__ is not exact:
                return _each(one, value)
        return value

    return Type(f"list[{item.text}]", "an array", _UNCHECKED, check)


def _each(check: Check, values: Sequence[Any]) -> list[Any]:
    checked = []
    try:
        for value in values:
            checked.append(check(value))
    except Mismatch as mismatch:
        mismatch.path.append(f"[{len(checked)}]")
        raise
    return checked


def _tuple(inner: tuple[Any, ...]) -> Type:
    if not inner:
        items = None
    elif len(inner) == 2 and inner[1] is Ellipsis:
        items = type_of(inner[0])
    else:
        return _fixed_tuple([type_of(item) for item in inner])
    every = items.check if items is not None else None

    def check(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise Mismatch("an array", json_name(value))
        return tuple(_each(every, value) if every is not None else value)

    return Type(f"tuple[{items.text}, ...]" if items is not None else "tuple", "an array", _UNCHECKED, check)


def _fixed_tuple(items: list[Type]) -> Type:
    wanted = f"an array of {len(items)}"

    def check(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise Mismatch(wanted, json_name(value))
        if len(value) != len(items):
            raise Mismatch(wanted, f"an array of {len(value)}")
        checked: list[Any] = []
        try:
            for item, element in zip(items, value, strict=True):
                checked.append(element if item.check is None else item.check(element))
        except Mismatch as mismatch:
            mismatch.path.append(f"[{len(checked)}]")
            raise
        return tuple(checked)

    return Type(f"tuple[{', '.join(item.text for item in items)}]", wanted, _UNCHECKED, check)


def _object(item: Type) -> Type:
    if item.check is None:
        return _scalar(dict, "dict")
    one = item.check

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Mismatch("an object", json_name(value))
        checked, key = {}, ""
        try:
            for key, member in value.items():
                checked[key] = one(member)
        except Mismatch as mismatch:
            mismatch.path.append(f"[{short(str(key))}]")
            raise
        return checked

    return Type(f"dict[str, {item.text}]", "an object", _UNCHECKED, check)


ANY = _unchecked("any")
_SCALARS: dict[object, Type] = {
    str: _scalar(str, "str"),
    bool: _scalar(bool, "bool"),
    None: _scalar(_NONE, "None"),
    _NONE: _scalar(_NONE, "None"),
    int: Type("int", "an integer", int, _integer),
    float: Type("float", "a number", float, _number),
    Any: ANY,
    object: ANY,
}
