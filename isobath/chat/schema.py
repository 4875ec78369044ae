"""What JSON types a parameter's schema allows: enough to tell a number from text that looks so.

This is no validator; a grammar (engine/structure.py) makes calls fit their schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ANY: frozenset[str] | None = None
_DEPTH = 8


def properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The declared properties of an object's schema."""
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def types_of(schema: Any, root: Mapping[str, Any], depth: int = _DEPTH) -> frozenset[str] | None:
    """Names of the types that a schema allows, None for any. root: where its $refs point into."""
    if not isinstance(schema, Mapping) or depth == 0:
        return ANY
    if isinstance(ref := schema.get("$ref"), str):
        return types_of(_resolve(ref, root), root, depth - 1)
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset((kind,))
    if isinstance(kind, list):
        return frozenset(name for name in kind if isinstance(name, str)) or ANY
    if "const" in schema:
        return frozenset((type_name(schema["const"]),))
    if isinstance(values := schema.get("enum"), list) and values:
        return frozenset(map(type_name, values))
    for word in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(word), list) and options:
            kinds = [types_of(option, root, depth - 1) for option in options]
            known = [kind for kind in kinds if kind is not None]
            return frozenset().union(*known) if len(known) == len(kinds) else ANY
    return ANY


def type_name(value: Any) -> str:
    """The JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def fits(value: Any, types: frozenset[str] | None) -> bool:
    """Whether a value is of one of the types."""
    if types is None:
        return True
    name = type_name(value)
    return name in types or (name == "integer" and "number" in types)


def _resolve(ref: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in ref.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
