"""Which Structure the fields of an API request ask for: response_format, tools, tool_choice, and
vLLM's structured_outputs.

Owns the reading of those fields, in OpenAI's chat shape, and what follows from several of them at
once. Assumes nothing of them: whatever is misshapen raises RequestError, which a server answers
with 400. It compiles nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from isobath.engine.structure import Structure
from isobath.errors import RequestError


def structure_for_chat(
    response_format: Mapping[str, Any] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    parallel_tool_calls: bool | None = None,
    thinking: bool | None = None,
    structured_outputs: Mapping[str, Any] | None = None,
) -> Structure | None:
    """The structure of a chat request's completion, None when its text is free.

    tools, tool_choice: as in OpenAI's API; "required" and a named tool constrain the completion to
    calls whose arguments follow the tool's parameters, "auto" constrains the calls only when a
    tool says strict. thinking: whether the prompt ends inside <think> (None: read from it).
    A tool that must be called goes before response_format, that before structured_outputs. Raises
    RequestError.
    """
    with _about("response_format"):
        text = _formatted(response_format)
    with _about("structured_outputs"):
        text = text or _structured(_mapping("structured_outputs", structured_outputs or {}))
    with _about("tools"):
        calls = _calls(tools or (), tool_choice, parallel_tool_calls is not False, text)
    found = calls or text
    return found and Structure(found.kind, found.value, thinking)


def structure_for_completion(
    response_format: Mapping[str, Any] | None = None,
    structured_outputs: Mapping[str, Any] | None = None,
) -> Structure | None:
    """The same for a request without messages."""
    return structure_for_chat(response_format, structured_outputs=structured_outputs)


def _formatted(response_format: Mapping[str, Any] | None) -> Structure | None:
    """The structure of the answer's text that OpenAI's field asks for."""
    wanted = _mapping("response_format", response_format or {})
    kind = wanted.get("type", "text")
    if kind == "json_object":
        return Structure.json_object()
    if kind == "json_schema":
        described = _mapping("response_format.json_schema", wanted.get("json_schema"))
        schema = described.get("schema", True)
        if not isinstance(schema, dict | bool):
            raise _wrong("response_format.json_schema.schema", "must be an object")
        return Structure.json_schema(schema)
    if kind != "text":
        raise _wrong("response_format.type", repr(kind), "known: text, json_object, json_schema")
    return None


def _structured(fields: Mapping[str, Any]) -> Structure | None:
    """vLLM's structured_outputs: one of its fields says what is wanted."""
    known = ("json", "json_object", "regex", "choice", "grammar")
    given = [k for k in known if fields.get(k) not in (None, False)]
    if fields.get("structural_tag") is not None:
        raise _wrong("structured_outputs.structural_tag", "not supported")
    if not given:
        return None
    if len(given) > 1:
        raise _wrong("structured_outputs", "several at once", ", ".join(given))
    [name], value = given, fields[given[0]]
    if name == "json_object":
        return Structure.json_object()
    if name == "json" and isinstance(value, dict | bool | str):
        return Structure.json_schema(value)
    if name == "choice" and isinstance(value, list | tuple):
        return Structure.choice(value)
    if isinstance(value, str) and name in ("regex", "grammar"):
        return Structure.regex(value) if name == "regex" else Structure.grammar(value)
    raise _wrong(f"structured_outputs.{name}", f"a value of type {type(value).__name__}")


def _calls(
    tools: Sequence[Mapping[str, Any]],
    tool_choice: str | Mapping[str, Any] | None,
    parallel: bool,
    text: Structure | None,
) -> Structure | None:
    """The structure that tool calls ask for, if they ask for any."""
    choice = tool_choice or "auto"
    if choice == "none" or (choice == "auto" and not tools):
        return None
    declared = [_function(i, tool) for i, tool in enumerate(tools)]
    if choice == "required":
        if not declared:
            raise _wrong("tools", "none declared", "tool_choice required")
        return Structure.tools(declared, parallel=parallel)
    if choice != "auto":
        name = _named(choice)
        named = [t for t in declared if t["name"] == name]
        if not named:
            known = ", ".join(t["name"] for t in declared)
            raise _wrong("tool_choice", f"the tool {name!r}", f"declared: {known}")
        return Structure.tools(named, parallel=False)
    if text is None and not any(tool["strict"] for tool in declared):
        return None
    loose = [tool | {"strict": bool(tool["strict"])} for tool in declared]
    return _either(loose, parallel, text)


def _either(
    tools: Sequence[Mapping[str, Any]], parallel: bool, text: Structure | None
) -> Structure:
    """Calls, or an answer whose text is structured, too."""
    if text is None:
        return Structure.tools(tools, choice="auto", parallel=parallel)
    if text.kind == "json_object":
        content: Any = {"type": "object"}
    elif text.kind == "json_schema":
        content = json.loads(text.value)
    else:
        raise RequestError(
            f"structured_outputs: tools and an answer of kind {text.kind}",
            found="beside calls an answer can be JSON",
            do="use response_format, or tool_choice none",
            param="structured_outputs",
        )
    return Structure.tools(tools, choice="auto", parallel=parallel, content=content)


def _function(index: int, tool: object) -> dict[str, Any]:
    """{"name", "parameters", "strict"} of a tool in OpenAI's shape."""
    where = f"tools.{index}"
    function = _mapping(f"{where}.function", _mapping(where, tool).get("function"))
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise _wrong(f"{where}.function.name", "must be a text that is not empty")
    if not (parameters is None or isinstance(parameters, dict)):
        raise _wrong(f"{where}.function.parameters", "must be a JSON schema")
    return {"name": name, "parameters": parameters, "strict": function.get("strict")}


def _named(choice: object) -> object:
    if not isinstance(choice, Mapping) or choice.get("type") != "function":
        raise RequestError(
            "tool_choice is unknown",
            found=repr(choice)[:80],
            do='pass "none", "auto", "required" or {"type": "function", "function": {"name"}}',
            param="tool_choice",
        )
    return _mapping("tool_choice.function", choice.get("function")).get("name")


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(where, "must be an object", type(value).__name__)
    return value


def _wrong(where: str, why: str, found: str = "") -> RequestError:
    return RequestError(f"{where}: {why}", found=found, param=where)


@contextmanager
def _about(where: str) -> Iterator[None]:
    """Errors from within that name no field are about this one."""
    try:
        yield
    except RequestError as error:
        if error.param:
            raise
        asked = f"{where}: {error.asked}"
        raise RequestError(asked, found=error.found, do=error.do, param=where) from error
