"""Tools of the Responses dialect as functions, and calls of those as the client knows them.

The model calls functions, by one name, with JSON arguments. Clients declare three kinds of tools
that they run themselves: functions; namespaces, which hold functions whose names are only unique
within them; and custom tools, which take one text. `declared` makes functions of all, and remembers
for each what it was (`Origin`), so that a call goes back in the shape in which the tool was
declared. All other kinds are run by OpenAI's servers; clients offer them unasked with every
request, so they are left out and named in the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from isobath.errors import RequestError

_log = logging.getLogger(__name__)


class InputTool(BaseModel):
    """A declared tool; `tools` are those of a namespace, `format` is a custom tool's."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = None
    namespace: str | None = None
    tools: list[InputTool] | None = None


class ToolChoice(BaseModel):
    """A tool by name, or several of which one is to be taken (`allowed_tools`)."""

    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[InputTool] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a function was declared as."""

    name: str
    namespace: str | None = None
    custom: bool = False

    @property
    def function(self) -> str:
        """The name by which the model knows it."""
        return flat_name(self.name, self.namespace)

    def item(self, call_id: str) -> dict[str, Any]:
        """A call of it as an output item that has no arguments yet."""
        of = {"namespace": self.namespace} if self.namespace else {}
        named = {"call_id": call_id, "name": self.name} | of
        if self.custom:
            return {"type": "custom_tool_call"} | named | {"input": ""}
        return {"type": "function_call"} | named | {"arguments": ""}


def flat_name(name: str, namespace: str | None) -> str:
    """One name for a function in a namespace."""
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def text_of(arguments: str) -> str:
    """A custom tool's text out of a call's arguments."""
    found = json.loads(arguments or "{}")
    text = found.get("input") if isinstance(found, dict) else None
    return text if isinstance(text, str) else arguments


def arguments_of(text: str) -> str:
    """A custom tool's text as a call's arguments."""
    return json.dumps({"input": text}, ensure_ascii=False)


def declared(tools: Iterable[InputTool]) -> tuple[list[dict[str, Any]], dict[str, Origin]]:
    """(functions as chat completions take them, what each was by its name).

    Raises RequestError for a tool without a name, and for two that would have one name.
    """
    functions: list[dict[str, Any]] = []
    origins: dict[str, Origin] = {}
    for path, tool, namespace in _each(tools, "tools", None):
        if tool.name is None:
            raise RequestError(f"{path}.name: field required", param=f"{path}.name")
        origin = Origin(tool.name, namespace, tool.type == "custom")
        if origin.function in origins:
            why = f"{path}.name: a second tool named {origin.function!r}"
            raise RequestError(why, param=f"{path}.name")
        origins[origin.function] = origin
        functions.append({"type": "function", "function": _function(tool, origin)})
    return functions, origins


def chosen(choice: ToolChoice, functions: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Any]:
    """(functions that may be called, tool_choice of chat completions)."""
    if choice.type in ("function", "custom") and choice.name is not None:
        named = {"name": flat_name(choice.name, choice.namespace)}
        return functions, {"type": "function", "function": named}
    if choice.type == "allowed_tools":
        allowed = {flat_name(tool.name or "", tool.namespace) for tool in choice.tools}
        kept = [one for one in functions if one["function"]["name"] in allowed]
        return kept, choice.mode
    why = f"tool_choice: no tool of the client is chosen by type {choice.type[:40]!r}"
    raise RequestError(why, param="tool_choice")


def _each(
    tools: Iterable[InputTool], path: str, namespace: str | None
) -> Iterator[tuple[str, InputTool, str | None]]:
    for at, tool in enumerate(tools):
        here = f"{path}.{at}"
        if tool.type == "namespace" and namespace is None:
            yield from _each(tool.tools or [], f"{here}.tools", tool.name or "")
        elif tool.type in ("function", "custom"):
            yield here, tool, namespace
        else:
            _log.info("%s: type %s left out: the client does not run it", here, tool.type[:40])


def _function(tool: InputTool, origin: Origin) -> dict[str, Any]:
    function: dict[str, Any] = {"name": origin.function}
    said = [tool.description] if tool.description else []
    parameters = tool.parameters or {"type": "object", "properties": {}}
    if origin.custom:
        grammar = (tool.format or {}).get("definition")
        said += [f"The input follows this grammar:\n{grammar}"] if grammar else []
        text = {"type": "string", "description": "The whole input, as plain text."}
        parameters = {"type": "object", "properties": {"input": text}, "required": ["input"]}
    if said:
        function["description"] = "\n\n".join(said)
    function["parameters"] = parameters
    if tool.strict and not origin.custom:
        function["strict"] = True
    return function
