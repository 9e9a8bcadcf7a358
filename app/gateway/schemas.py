"""What a function takes, as JSON Schema (2020-12), made from its entry in the catalogue; and whether arguments are that.

The catalogue names types in Python's notation: `list[str] | None`. They are read as text; nothing is imported or evaluated. Where one is
not among those that workers check, everything passes, as it does there. The last word is the worker's.
"""

import ast
from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import Any, Final

from app.errors import BadArguments

Schema = dict[str, Any]

_SCALARS: Mapping[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "tuple": {"type": "array"},
    "dict": {"type": "object"},
    "any": {},
}
_NULL: Final = {"type": "null"}
_MOST_TEXT: Final = 1000
_MOST_DEPTH: Final = 8


class _Unknown(Exception):
    """A part of a type that is not checked."""


def schema_of(text: str) -> Schema:
    """The schema of a type, as the catalogue has it."""
    try:
        return _read(ast.parse(text[:_MOST_TEXT], mode="eval").body, _MOST_DEPTH)
    except (_Unknown, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _read(node: ast.expr, depth: int) -> Schema:
    if depth == 0:
        raise _Unknown
    match node:
        case ast.Constant(None):
            return _NULL
        case ast.Name(name) if name in _SCALARS:
            return _SCALARS[name]
        case ast.BinOp(left, ast.BitOr(), right):
            return _union(_read(left, depth), _read(right, depth))  # a chain of them is as deep as it is long, and no nesting
        case ast.Subscript(ast.Name(name), inner) if name in _GENERICS:
            return _GENERICS[name](list(inner.elts) if isinstance(inner, ast.Tuple) else [inner], depth - 1)
    raise _Unknown


def _union(one: Schema, other: Schema) -> Schema:
    members = [*one.get("anyOf", [one]), *other.get("anyOf", [other])]
    return {"anyOf": [member for number, member in enumerate(members) if member not in members[:number]]} if all(members) else {}


def _list(inner: list[ast.expr], depth: int) -> Schema:
    return {"type": "array", "items": _read(inner[0], depth)}


def _dict(inner: list[ast.expr], depth: int) -> Schema:
    return {"type": "object", "additionalProperties": _read(inner[-1], depth)}


def _tuple(inner: list[ast.expr], depth: int) -> Schema:
    if isinstance(inner[-1], ast.Constant) and inner[-1].value is Ellipsis:
        return _list(inner, depth)
    items = [_read(item, depth) for item in inner]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _literal(inner: list[ast.expr], depth: int) -> Schema:
    choices = [ast.literal_eval(item) for item in inner]
    if not all(choice is None or type(choice) in (str, int, bool) for choice in choices):
        raise _Unknown
    return {"enum": choices}


_GENERICS: Mapping[str, Callable[[list[ast.expr], int], Schema]] = {"list": _list, "dict": _dict, "tuple": _tuple, "Literal": _literal}


class Arguments:
    """What one function takes: `by_name` and `by_position` are schemas; `required`, whether it cannot be called with nothing."""

    def __init__(self, params: list[dict[str, Any]]) -> None:
        """`params` as the catalogue has them, in order: what stands behind `*rest` can only be given by name."""
        schemas = {str(param["name"]): _with_default(schema_of(param["type"]), param) for param in params}
        needed = [str(param["name"]) for param in params if param["required"]]
        named = {name: schema for name, schema in schemas.items() if not name.startswith("*")}
        rest = next((name for name in schemas if name.startswith("*") and not name.startswith("**")), "")
        first = list(schemas)[: list(schemas).index(rest)] if rest else list(named)
        others = next((schema for name, schema in schemas.items() if name.startswith("**")), False)
        self.required = bool(needed)
        self.by_name: Schema = {"type": "object", "properties": named, "additionalProperties": others}
        self.by_position: Schema = {"type": "array", "minItems": len([name for name in needed if name in first])}
        if needed:
            self.by_name["required"] = needed
        if first:
            self.by_position["prefixItems"] = [schemas[name] for name in first]
        self.by_position |= {"items": schemas[rest]} if rest else {"maxItems": len(first)}

    def schema(self) -> Schema:
        """All that may stand under `args`."""
        return {"anyOf": [self.by_name, self.by_position, *([] if self.required else [_NULL])]}

    def check(self, args: dict[str, Any] | list[Any] | None) -> None:
        """Raises `BadArguments` for what no worker takes, with where and why."""
        if isinstance(args, list):
            wrong = mismatch(self.by_position, args, "args")
        else:
            given = {name[:-1] if name[-1:] == "_" and iskeyword(name[:-1]) else name: value for name, value in (args or {}).items()}
            wrong = mismatch(self.by_name, given, "args")
        if wrong:
            raise BadArguments(wrong)


def _with_default(schema: Schema, param: dict[str, Any]) -> Schema:
    return {**schema, "default": param["default"]} if "default" in param else schema


def mismatch(schema: Schema, value: Any, where: str) -> str:
    """How a value is not what a schema of this file wants; empty where it is."""
    if "anyOf" in schema:
        return _mismatch_in_union(schema["anyOf"], value, where)
    if "enum" in schema:
        fits = any(choice == value and (type(choice) is bool) == (type(value) is bool) for choice in schema["enum"])
        return "" if fits else f"{where} is none of the {len(schema['enum'])} that it may be"
    kind = schema.get("type")
    if kind is None:
        return ""
    if type(value) not in _TYPES[kind] and not (kind == "integer" and type(value) is float and value.is_integer()):
        return f"{where} wants {_ARTICLES.get(kind, 'a')} {kind}".replace("a null", "null")
    if kind == "array":
        return _mismatch_in_array(schema, value, where)
    return _mismatch_in_object(schema, value, where) if kind == "object" else ""


def _mismatch_in_union(members: list[Schema], value: Any, where: str) -> str:
    found = [mismatch(member, value, where) for member in members]
    if not all(found):
        return ""
    inside = [text for text in found if not text.startswith(f"{where} wants ")]
    return inside[0] if inside else f"{where} wants {' or '.join(text.removeprefix(f'{where} wants ') for text in found)}"


def _mismatch_in_array(schema: Schema, value: list[Any], where: str) -> str:
    if len(value) < schema.get("minItems", 0):
        return f"{where} wants {schema['minItems']} values at least"
    if len(value) > schema.get("maxItems", len(value)):
        return f"{where} wants {schema['maxItems']} values at most"
    first: list[Schema] = schema.get("prefixItems", [])
    rest: Schema = schema.get("items", {})
    for number, item in enumerate(value):
        if wrong := mismatch(first[number] if number < len(first) else rest, item, f"{where}[{number}]"):
            return wrong
    return ""


def _mismatch_in_object(schema: Schema, value: dict[str, Any], where: str) -> str:
    for name in schema.get("required", ()):
        if name not in value:
            return f'"{name}" is missing in {where}'
    named: Mapping[str, Schema] = schema.get("properties", {})
    others: Schema | bool = schema.get("additionalProperties", {})
    for name, item in value.items():
        known = named.get(name, others)
        if isinstance(known, bool):
            return f"{name[:40]!r} is no argument; there are {', '.join(named) or 'none'}"
        if wrong := mismatch(known, item, f"{where}.{name[:40]}"):
            return wrong
    return ""


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
_ARTICLES: Mapping[str, str] = {"integer": "an", "array": "an", "object": "an"}
