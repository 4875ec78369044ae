"""What of a JSON schema, or a pattern, xgrammar would not enforce.

xgrammar compiles a schema with keywords that it does not know, and then lets text through that the
schema refuses. beyond() names the first such thing, so that another backend can be asked, or the
request be refused. closed() is the schema as it is compiled. The rules were found by comparing what
xgrammar accepts with a validator; they may say no to more than they must. Assumes JSON values; does
not validate schemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NEVER = (
    "contains",
    "minContains",
    "maxContains",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
    "unevaluatedItems",
    "additionalItems",
    "$dynamicRef",
    "$recursiveRef",
)
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_STRING = ("minLength", "maxLength", "pattern", "format")
_ARRAY = ("items", "prefixItems", "minItems", "maxItems")
_OBJECT = (
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
)
_OPEN = (
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
)
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("additionalProperties", "items", "propertyNames")
"""Where subschemas are: by name, in a list, alone."""
_ALONE = ("$ref", "anyOf", "oneOf", "allOf", "enum", "const")
_ASSERTIONS = (*_NUMBER, *_STRING, *_ARRAY, *_OBJECT)


def beyond(schema: Any) -> str | None:
    """The first thing in a schema that xgrammar lets pass unchecked, in words; None if nothing."""
    if not isinstance(schema, Mapping):
        return None
    for name in _NEVER:
        if name in schema:
            return name
    if schema.get("uniqueItems"):
        return "uniqueItems"
    return (
        _alone(schema)
        or _number(schema)
        or _string(schema)
        or _object(schema)
        or next((found for sub in _subschemas(schema) if (found := beyond(sub))), None)
    )


def closed(schema: Any) -> Any:
    """The schema with every object that declares properties, and does not speak of others, closed
    to others. A model that may go on adding properties sometimes does not stop."""
    if not isinstance(schema, Mapping):
        return schema
    found = dict(schema)
    if found.get("properties") and not set(_OPEN) & set(found):
        found["additionalProperties"] = False
    for name in _NAMED:
        if isinstance(found.get(name), Mapping):
            found[name] = {key: closed(value) for key, value in found[name].items()}
    for name in _LISTED:
        if isinstance(found.get(name), list):
            found[name] = [closed(value) for value in found[name]]
    for name in _SINGLE:
        if name in found:
            found[name] = closed(found[name])
    return found


def beyond_pattern(pattern: str) -> str | None:
    """The same for a regular expression."""
    if "(?" in pattern.replace("(?:", ""):
        return "a look-around or other (? group"
    inner = pattern.removeprefix("^")
    if inner.endswith("$") and not inner.endswith("\\$"):
        inner = inner[:-1]
    plain = inner.replace("\\\\", "").replace("\\^", "").replace("\\$", "").replace("[^", "")
    return "^ or $ within a pattern" if "^" in plain or "$" in plain else None


def _alone(schema: Mapping[str, Any]) -> str | None:
    """Keywords beside which the others are not looked at."""
    given = [name for name in _ALONE if name in schema]
    others = [name for name in _ASSERTIONS if name in schema]
    if not given:
        return None
    if len(given) > 1 or others:
        return f"{given[0]} beside {(given[1:] + others)[0]}"
    if given[0] in ("enum", "const"):
        values = schema["enum"] if given[0] == "enum" else [schema["const"]]
        if "type" in schema and not all(_is(v, schema["type"]) for v in values):
            return f"{given[0]} of another type"
    elif "type" in schema:
        return f"{given[0]} beside type"
    if given[0] == "allOf" and len(schema["allOf"]) > 1:
        return "allOf"
    if given[0] == "oneOf":
        kinds = [s.get("type") if isinstance(s, Mapping) else None for s in schema["oneOf"]]
        one_each = all(isinstance(k, str) for k in kinds) and len(set(kinds)) == len(kinds)
        if not one_each or {"integer", "number"} <= set(kinds):
            return "oneOf"
    reference = schema.get("$ref", "#")
    if reference != "#" and not str(reference).startswith("#/"):
        return f"$ref {reference!r}"
    return None


def _number(schema: Mapping[str, Any]) -> str | None:
    given = [name for name in _NUMBER if name in schema]
    if given and "type" not in schema:
        return f"{given[0]} without type"
    if any(isinstance(schema[name], bool) for name in given):
        return "exclusiveMinimum or exclusiveMaximum as a boolean"
    if "multipleOf" in schema and (
        len(given) > 1
        or schema.get("type") != "integer"
        or not _is(schema["multipleOf"], "integer")
    ):
        return "multipleOf of numbers, or with bounds"
    return None


def _string(schema: Mapping[str, Any]) -> str | None:
    given = [name for name in _STRING if name in schema]
    if given and "type" not in schema:
        return f"{given[0]} without type"
    if len(given) > 1 and not set(given) <= {"minLength", "maxLength"}:
        return f"{given[0]} beside {given[1]}"
    return beyond_pattern(str(schema["pattern"])) if "pattern" in schema else None


def _object(schema: Mapping[str, Any]) -> str | None:
    declared = schema.get("properties") or {}
    if set(schema.get("required") or ()) - set(declared):
        return "required of a property that is not in properties"
    if "patternProperties" in schema:
        others = [n for n in _OBJECT if n in schema and n != "patternProperties"]
        if others != ["additionalProperties"] or schema["additionalProperties"] is not False:
            return "patternProperties, unless additionalProperties is false and nothing else said"
        return next((f for p in schema["patternProperties"] if (f := beyond_pattern(p))), None)
    if "propertyNames" in schema and declared:
        return "propertyNames beside properties"
    return None


def _subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    for name in _NAMED:
        if isinstance(schema.get(name), Mapping):
            yield from schema[name].values()
    for name in _LISTED:
        if isinstance(schema.get(name), list):
            yield from schema[name]
    for name in _SINGLE:
        yield schema.get(name)


def _is(value: Any, kinds: Any) -> bool:
    """Whether a JSON value is of a type, or of one of several."""
    names = [kinds] if isinstance(kinds, str) else kinds
    number = isinstance(value, int | float) and not isinstance(value, bool)
    found = {
        "null": value is None,
        "boolean": isinstance(value, bool),
        "integer": number and value == int(value),
        "number": number,
        "string": isinstance(value, str),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }
    return any(found.get(name, False) for name in names)
