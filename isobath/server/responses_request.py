"""What POST /v1/responses accepts, and the chat request that it means.

Stateless: the whole conversation comes with every request, and nothing is kept of it. `chat_body`
turns the items into the body of a chat completion: from there on prompts, limits and sampling have
one implementation, that of chat completions. Items that an assistant made one after another
(reasoning, message, calls) are one turn of the model, and become one message.

Unknown fields are ignored, as everywhere. What becomes of tools is told in responses_tools.py.
Items that cannot be served are refused with the path to them.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from isobath.errors import RequestError
from isobath.server.responses_tools import (
    InputTool,
    Origin,
    ToolChoice,
    arguments_of,
    chosen,
    declared,
    flat_name,
)
from isobath.server.sealed import unseal

LOGPROBS = "message.output_text.logprobs"
"""What a client asks to be included when it wants log-probabilities."""
REPLAY = "replay full input instead: this server keeps no responses"
ELSEWHERE = {
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_list_tools",
    "tool_search_call",
    "tool_search_output",
}
"""Items about tools that ran on another server: what they found stands in that server's answer."""
CARRIED = (
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "ignore_eos",
    "min_tokens",
    "seed",
    "cache_salt",
    "top_logprobs",
)
"""Fields of the same name and meaning in a chat completion."""

_log = logging.getLogger(__name__)


class Part(BaseModel):
    """A part of a message, a tool's output, or reasoning."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Item(BaseModel):
    """An input item of any type: which fields must be there depends on `type`."""

    type: str | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[Part] | None = None


class Reasoning(BaseModel):
    effort: str | None = None
    summary: str | None = None


class TextFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextConfig(BaseModel):
    format: TextFormat | None = None
    verbosity: str | None = None


class ResponsesRequest(BaseModel):
    """POST /v1/responses. The last lines are sampling fields that load generators add."""

    model: str | None = None
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    background: bool | None = None
    tools: list[InputTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, lt=2**63)
    temperature: float | None = None
    top_p: float | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    cache_salt: str | None = Field(default=None, min_length=1)
    user: str | None = None
    safety_identifier: str | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    seed: int | None = None


def chat_body(request: ResponsesRequest) -> tuple[dict[str, Any], dict[str, Origin]]:
    """The chat completion that a request means, and what each of its functions was declared as.

    Fields that the request leaves open are absent.

    Raises RequestError for what needs a memory of earlier responses, and for items that cannot be
    served.
    """
    _stateless(request)
    if request.top_logprobs and not wants_logprobs(request):
        raise _refused("top_logprobs", f'include must hold "{LOGPROBS}"')
    body: dict[str, Any] = {"messages": chat_messages(request)}
    tools, origins = declared(request.tools or [])
    choice: Any = request.tool_choice
    if isinstance(choice, ToolChoice):
        tools, choice = chosen(choice, tools)
    form = request.text.format if request.text else None
    asked = {
        "model": request.model,
        "tools": tools or None,
        "tool_choice": choice if tools else None,
        "parallel_tool_calls": request.parallel_tool_calls if tools else None,
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        "response_format": _response_format(form) if form else None,
        "max_completion_tokens": request.max_output_tokens,
        "prompt_cache_key": request.prompt_cache_key,
        "logprobs": True if wants_logprobs(request) else None,
    }
    for name in CARRIED:
        asked[name] = getattr(request, name)
    return body | {name: value for name, value in asked.items() if value is not None}, origins


def wants_logprobs(request: ResponsesRequest) -> bool:
    return LOGPROBS in (request.include or ())


def chat_messages(request: ResponsesRequest) -> list[dict[str, Any]]:
    """The conversation in the shape of chat completions, in the order of the items."""
    found: list[dict[str, Any]] = []
    if request.instructions:
        found.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*found, {"role": "user", "content": request.input}]
    for at, item in enumerate(request.input):
        _add(found, item, f"input.{at}")
    return found


def _add(found: list[dict[str, Any]], item: Item, path: str) -> None:
    """Bring one item into the conversation."""
    match item.type or "message":
        case "message":
            if item.role is None:
                raise _refused(f"{path}.role", "field required")
            parts = _parts(item.content, f"{path}.content")
            if item.role == "assistant":
                _turn(found, "content")["content"] = parts
            else:
                role = "user" if item.role == "user" else "system"
                found.append({"role": role, "content": parts})
        case "reasoning":
            if text := _thought(item):
                _turn(found, "reasoning_content")["reasoning_content"] = text
        case "function_call" | "custom_tool_call":
            call = _call(item, path)
            _turn(found, "tool_calls", many=True).setdefault("tool_calls", []).append(call)
        case "function_call_output" | "custom_tool_call_output":
            if item.call_id is None:
                raise _refused(f"{path}.call_id", "field required")
            parts = _parts(item.output, f"{path}.output")
            found.append({"role": "tool", "tool_call_id": item.call_id, "content": parts})
        case "item_reference":
            raise _refused(path, REPLAY)
        case other if other in ELSEWHERE:
            _log.info("input item of type %s left out: its tool ran on another server", other)
        case other:
            raise _refused(f"{path}.type", f"items of type {other[:40]} are not supported")


_ORDER = ("reasoning_content", "content", "tool_calls")
"""A turn's parts, in the order in which the model writes them."""


def _turn(found: list[dict[str, Any]], field: str, *, many: bool = False) -> dict[str, Any]:
    """The assistant's message that `field` belongs to: the last one, if it has not come so far."""
    last = found[-1] if found else {}
    later = _ORDER[_ORDER.index(field) + (1 if many else 0) :]
    taken = any(last.get(name) for name in later)
    if last.get("role") != "assistant" or taken:
        found.append({"role": "assistant", "content": []})
    return found[-1]


def _thought(item: Item) -> str:
    """What was reasoned: in plain, or in our own sealed word, or at least its summary."""
    if isinstance(item.content, str):
        return item.content
    plain = "".join(part.text or "" for part in item.content or [])
    summary = "\n\n".join(part.text or "" for part in item.summary or [])
    return plain or unseal(item.encrypted_content) or summary


def _call(item: Item, path: str) -> dict[str, Any]:
    custom = item.type == "custom_tool_call"
    text = item.input if custom else item.arguments
    if item.call_id is None or item.name is None or text is None:
        raise _refused(path, f"call_id, name and {'input' if custom else 'arguments'} are required")
    name = flat_name(item.name, item.namespace)
    function = {"name": name, "arguments": arguments_of(text) if custom else text}
    return {"id": item.call_id, "type": "function", "function": function}


def _parts(content: str | list[Part] | None, path: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    found = []
    for at, part in enumerate(content or []):
        text = part.refusal if part.type == "refusal" else part.text
        if part.type not in ("input_text", "output_text", "text", "refusal", "summary_text"):
            why = f"{part.type[:40]} parts are not supported: this model reads text only"
            raise _refused(f"{path}.{at}", why)
        if text is None:
            raise _refused(f"{path}.{at}.text", "field required")
        found.append({"type": "text", "text": text})
    return found


def _response_format(form: TextFormat) -> dict[str, Any]:
    if form.type != "json_schema":
        return {"type": form.type}
    if form.schema_ is None:
        raise _refused("text.format.schema", "field required")
    schema = {"name": form.name or "output", "schema": form.schema_, "strict": form.strict}
    return {"type": "json_schema", "json_schema": schema}


def _stateless(request: ResponsesRequest) -> None:
    """Refuse what only a server with a memory could do."""
    kept = {
        "previous_response_id": request.previous_response_id,
        "conversation": request.conversation,
        "prompt": request.prompt,
        "background": request.background or None,
    }
    for name, value in kept.items():
        if value is not None:
            raise _refused(name, REPLAY)


def _refused(path: str, why: str) -> RequestError:
    return RequestError(f"{path}: {why}", param=path)
