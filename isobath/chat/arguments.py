"""From a call's parameters to the JSON object of its arguments, while they arrive.

Fragments joined are always one JSON object, also of a call that was cut off. A string is passed on
piece by piece; any other value waits for its end, since only then it is known to be JSON. What a
model gets wrong is mended here: a missing or wrong `string=`, and an object wrapped into one
parameter called `arguments` or `input`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, NoReturn

from isobath.chat.dsml import to_json
from isobath.chat.schema import fits, properties, types_of

WRAPPERS = ("arguments", "input")


class _Mode(Enum):
    NONE = auto()  # no value is open
    STREAM = auto()
    WAIT = auto()
    DROP = auto()  # a parameter that was there before: the first one stays


class Arguments:
    """The arguments of one call. Every method returns the next fragment, maybe an empty one."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema, self._declared = schema, properties(schema)
        self._names: set[str] = set()
        self._mode = _Mode.NONE
        self._name, self._string = "", ""
        self._types: frozenset[str] | None = None
        self._value: list[str] = []
        self._wrapped: str | None = None  # the value of a wrapper, until it is known to be alone
        self._written = False

    def begin(self, name: str, string: str | None) -> str:
        """A parameter begins. string: its attribute, None if it has none."""
        out = self._unfold()
        self._name, self._string = name, (string or "").lower()
        self._types = types_of(self._declared.get(name), self._schema)
        self._value = []
        if name in self._names:
            self._mode = _Mode.DROP
            return out
        wraps = name in WRAPPERS and name not in self._declared and not self._names
        allowed = self._types is None or "string" in self._types
        stream = allowed if self._string == "true" else self._types == frozenset(("string",))
        if stream and self._string != "false" and not wraps:
            self._mode = _Mode.STREAM
            return out + self._key(name) + '"'
        self._mode = _Mode.WAIT
        return out

    def add(self, text: str) -> str:
        """More of the open parameter's value."""
        if self._mode is _Mode.STREAM:
            return to_json(text)[1:-1]
        self._value.append(text)
        return ""

    def end(self) -> str:
        """The open parameter's value is complete."""
        mode, self._mode = self._mode, _Mode.NONE
        if mode is _Mode.STREAM:
            return '"'
        if mode is _Mode.DROP:
            return ""
        text = "".join(self._value)
        first = not self._names
        if first and self._name in WRAPPERS and self._name not in self._declared:
            self._names.add(self._name)
            self._wrapped = text
            return ""
        return self._key(self._name) + self._json(text)

    def close(self) -> str:
        """The call is complete: the rest of the object."""
        if self._wrapped is not None and isinstance(_parsed(self._wrapped), dict):
            return self._wrapped.strip()
        out = self._unfold()
        return out + ("}" if self._written else "{}")

    def cut(self, complete: bool) -> str:
        """The answer ended inside the call. complete: the model meant to end, so an open value that
        waits is taken for whole; one that was cut off is left out, as nobody knows its end."""
        out = ""
        if self._mode is _Mode.STREAM or (self._mode is _Mode.WAIT and complete):
            out = self.end()
        self._mode = _Mode.NONE
        return out + self.close()

    def _unfold(self) -> str:
        """Write a wrapper that turned out not to be one."""
        if self._wrapped is None:
            return ""
        text, self._wrapped = self._wrapped, None
        return self._key(self._name) + self._json(text)

    def _key(self, name: str) -> str:
        self._names.add(name)
        begin, self._written = ", " if self._written else "{", True
        return f"{begin}{to_json(name)}: "

    def _json(self, text: str) -> str:
        """A value that waited: JSON if it is meant to be and is, else a string."""
        value = _parsed(text)
        kept = self._string == "true" and (self._types is None or "string" in self._types)
        wrong = self._string != "false" and not fits(value, self._types)
        return to_json(text) if value is _NOT_JSON or kept or wrong else text.strip()


class _NotJson:
    """Stands for the value of text that is no JSON."""


_NOT_JSON = _NotJson()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
