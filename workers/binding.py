"""Binding: what came as JSON `args` becomes what a function is called with, type-checked against its signature.

All the work that can be done once is done when the function is registered; a call costs about a microsecond. What lives here: the
`Parameter` and the `Binder`. What does not: what an annotation accepts (`workers/checks.py`), names of functions and their options
(`workers/registry.py`). Messages name the parameter and JSON types, never a value: arguments do not belong in logs.
"""

import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any, NoReturn

from app.errors import BadArguments, BadRequest
from workers.checks import ANY, Check, Mismatch, Type, has_json_form, json_name, short, takes, type_of, unchecked, union

Bound = tuple[tuple[Any, ...], dict[str, Any]]
"""What a function is called with: `function(*bound[0], **bound[1])`."""

_EMPTY = inspect.Parameter.empty
_STARS: dict[inspect._ParameterKind, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter as the wire sees it: `name` is the wire's (`from`), `python_name` the function's (`from_`)."""

    name: str
    python_name: str
    kind: inspect._ParameterKind
    type: Type
    default: Any = _EMPTY

    @property
    def required(self) -> bool:
        return self.default is _EMPTY and self.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    @property
    def by_position(self) -> bool:
        return self.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

    def describe(self) -> dict[str, Any]:
        """Its entry in the catalogue; no `default` where it is required, or the default has no JSON form."""
        entry = {"name": _STARS.get(self.kind, "") + self.name, "type": self.type.text, "required": self.required}
        if self.default is not _EMPTY and has_json_form(self.default):
            entry["default"] = self.default
        return entry


class Binder:
    """Binds `args` to one signature. `parameters` are the signature's; where a callable has none, anything is taken."""

    __slots__ = ("_anything", "_extra", "_least", "_order", "_positional_only", "_required", "_rest", "_slots", "parameters")

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = tuple(parameters)
        by_kind = {kind: [p for p in parameters if p.kind is kind] for kind in inspect._ParameterKind}
        named = [p for p in parameters if p.by_position or p.kind is inspect.Parameter.KEYWORD_ONLY]
        self._slots = {spelling: (p.python_name, p.type.exact, p.type.check) for p in named for spelling in (p.python_name, p.name)}
        self._order = tuple(p for p in parameters if p.by_position)
        self._required = tuple(p.python_name for p in named if p.required)
        self._positional_only = tuple(by_kind[inspect.Parameter.POSITIONAL_ONLY])
        self._rest = next(iter(by_kind[inspect.Parameter.VAR_POSITIONAL]), None)
        self._extra = next(iter(by_kind[inspect.Parameter.VAR_KEYWORD]), None)
        self._anything = not named and self._extra is not None and self._extra.type.check is None
        self._least = max((n for n, p in enumerate(self._order, 1) if p.required), default=0)

    def bind(self, args: object) -> Bound:
        """Positional and keyword arguments for the call, from an object, an array or None.

        Raises `BadArguments`, its `parameter` being the name on the wire (`to[3]` for what is inside); `BadRequest` for any other type.
        The dict returned may be the one given: call with it, do not change it.
        """
        if args.__class__ is dict:
            if self._anything:
                return (), args
            return self._bind_named(args)
        if args is None:
            return self._bind_named({})
        if isinstance(args, list):
            return self._bind_positional(args)
        raise BadRequest(f"args must be an object, an array or absent, not {json_name(args)}")

    def _bind_named(self, args: dict[str, Any]) -> Bound:
        slots = self._slots
        bound: dict[str, Any] = {}
        key = ""
        try:
            for key, value in args.items():
                name, exact, check = slots.get(key) or self._extra_slot(key)
                bound[name] = value if check is None or value.__class__ is exact else check(value)
        except Mismatch as mismatch:
            raise _bad_value(key, mismatch) from None
        for name in self._required:
            if name not in bound:
                self._refuse_missing(name)
        if len(bound) != len(args):
            self._refuse_duplicate(args)
        if self._positional_only:
            return self._split(bound)
        return (), bound

    def _bind_positional(self, args: list[Any]) -> Bound:
        if len(args) < self._least:
            self._refuse_missing(next(p.python_name for p in self._order[len(args) :] if p.required))
        for parameter in self.parameters:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.required:
                raise BadArguments(f'"{parameter.name}" can only be given by name; send args as an object', parameter=parameter.name)
        named = len(self._order)
        if len(args) > named and self._rest is None:
            raise BadArguments(f"too many arguments: at most {named} are taken, {len(args)} came")
        bound = [_checked(p.name, p.type, value) for p, value in zip(self._order, args, strict=False)]
        if self._rest is not None:
            rest = self._rest
            bound.extend(_checked(f"{rest.name}[{n}]", rest.type, value) for n, value in enumerate(args[named:]))
        return tuple(bound), {}

    def _extra_slot(self, key: str) -> tuple[str, object, Check | None]:
        if self._extra is not None:
            return key, self._extra.type.exact, self._extra.type.check
        names = [p.name for p in self.parameters if p.by_position or p.kind is inspect.Parameter.KEYWORD_ONLY]
        close = difflib.get_close_matches(key[:100], names, 1)
        advice = f'; did you mean "{close[0]}"?' if close else f"; there {_listed(names)}"
        raise BadArguments(f"unexpected argument {short(key)}{advice}", parameter=key[:100])

    def _split(self, bound: dict[str, Any]) -> Bound:
        """Positional-only parameters go by position; a gap among them is filled with defaults."""
        given = [n for n, p in enumerate(self._positional_only, 1) if p.python_name in bound]
        wanted = self._positional_only[: max(given, default=0)]
        return tuple(bound.pop(p.python_name, p.default) for p in wanted), bound

    def _refuse_missing(self, python_name: str) -> NoReturn:
        parameter = next(p for p in self.parameters if p.python_name == python_name)
        raise BadArguments(f'"{parameter.name}" is missing; it must be {parameter.type.wanted}', parameter=parameter.name)

    def _refuse_duplicate(self, args: dict[str, Any]) -> NoReturn:
        twice = next(p for p in self.parameters if p.name != p.python_name and p.name in args and p.python_name in args)
        raise BadArguments(f'"{twice.name}" and "{twice.python_name}" are the same argument; give one', parameter=twice.name)


def binder_of(function: Callable[..., Any]) -> Binder:
    """The binder of any callable; one without a readable signature (a C builtin) gets one that takes anything."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        anything = (("arguments", inspect.Parameter.VAR_POSITIONAL), ("named", inspect.Parameter.VAR_KEYWORD))
        return Binder([Parameter(name, name, kind, ANY) for name, kind in anything])
    namespace = _namespace_of(function)
    return Binder([_parameter(p, namespace) for p in signature.parameters.values()])


def _parameter(parameter: inspect.Parameter, namespace: dict[str, Any]) -> Parameter:
    kind = _type_of(parameter.annotation, namespace)
    if parameter.default is None and not takes(kind, None):
        kind = union([kind, type_of(None)])
    return Parameter(_wire_name(parameter.name), parameter.name, parameter.kind, kind, parameter.default)


def _type_of(annotation: Any, namespace: dict[str, Any]) -> Type:
    """The type of an annotation, its strings looked up and `Annotated` taken off; unchecked where that fails."""
    if annotation is _EMPTY:
        return ANY
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return type_of(typing.get_type_hints(holder, namespace)["it"])
    except Exception:  # noqa: BLE001  # evaluating one may raise anything; most often a name imported for type checkers only
        return unchecked(annotation)


def _namespace_of(function: Any) -> dict[str, Any]:
    """Where the names in the annotations of a callable are looked up: the globals of the code behind partials, wrappers and instances."""
    while hasattr(function, "func"):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__module__") or not hasattr(function, "__qualname__"):
        function = type(function)
    return vars(sys.modules.get(str(function.__module__), typing))


def _wire_name(python_name: str) -> str:
    bare = python_name.removesuffix("_")
    return bare if iskeyword(bare) else python_name


def _checked(name: str, kind: Type, value: Any) -> Any:
    if kind.check is None or value.__class__ is kind.exact:
        return value
    try:
        return kind.check(value)
    except Mismatch as mismatch:
        raise _bad_value(name, mismatch) from None


def _bad_value(name: str, mismatch: Mismatch) -> BadArguments:
    where = _wire_name(name) + "".join(reversed(mismatch.path))
    return BadArguments(f'"{where}" must be {mismatch.wanted}, not {mismatch.came}', parameter=where)


def _listed(names: list[str]) -> str:
    return "are none" if not names else "are " + ", ".join(f'"{name}"' for name in names[:20])
