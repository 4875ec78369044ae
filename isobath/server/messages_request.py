"""What POST /v1/messages accepts, and the chat request that it means.

`chat_body` turns an Anthropic request into the body of a chat completion: from there on prompts,
limits and sampling have one implementation, that of chat completions. Every message keeps its
place: system messages between turns are not moved to the front, because a client that appends one
each turn would then change the beginning of its prompt, and find nothing of it in the prefix cache.

Unknown fields are ignored, as everywhere; blocks and tools that cannot be served are refused with
the path to them. What stands in a request is checked for shape here and for range by chat.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, Field

from isobath.errors import RequestError
from isobath.server.sealed import unseal

BILLING_HEADER = "x-anthropic-billing-header"
"""A system block that begins with this holds a hash of each request: rendering it would make every
prompt differ near its beginning."""


class Block(BaseModel):
    """A content block of any type: which fields must be there depends on `type`."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    tool_name: str | None = None
    content: str | list[Block] | None = None
    is_error: bool | None = None
    source: dict[str, Any] | None = None


class InputMessage(BaseModel):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class InputTool(BaseModel):
    """A tool of the client. `type` other than "custom" is one that Anthropic's servers know."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(BaseModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(BaseModel):
    """budget_tokens is accepted and means nothing here: the model knows efforts, not budgets."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(BaseModel):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(BaseModel):
    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(BaseModel):
    user_id: str | None = None


class CountTokensRequest(BaseModel):
    """The part of a request that makes the prompt: POST /v1/messages/count_tokens."""

    model: str | None = None
    messages: list[InputMessage] = Field(min_length=1)
    system: str | list[Block] | None = None
    tools: list[InputTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None  # where output_config.format stood before


class MessagesRequest(CountTokensRequest):
    """POST /v1/messages. The last line are sampling fields that load generators add."""

    max_tokens: int = Field(ge=1, lt=2**63)
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: Metadata | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    seed: int | None = None


def plain_model(name: str | None) -> str | None:
    """A model's name without what clients append in brackets, such as `[1m]`."""
    return name.partition("[")[0] if name and name.endswith("]") else name


def chat_body(request: CountTokensRequest, context: int) -> dict[str, Any]:
    """The chat completion that a request means; fields it leaves open are absent.

    context: the longest a sequence can get. max_tokens beyond it is cut: clients of this dialect
    ask for the same large number whatever model they meet.
    Raises RequestError for a block or a tool that cannot be served.
    """
    body: dict[str, Any] = {"messages": chat_messages(request)}
    asked: dict[str, Any] = {"model": plain_model(request.model)}
    if request.tools:
        asked["tools"] = [_tool(tool, at) for at, tool in enumerate(request.tools)]
        asked |= _choice(request.tool_choice)
    if request.thinking:
        off = request.thinking.type == "disabled"
        asked["thinking"] = {"type": "disabled" if off else "enabled"}
    config = request.output_config or OutputConfig()
    asked["reasoning_effort"] = config.effort
    if form := config.format or request.output_format:
        schema = {"name": "output", "schema": form.schema_, "strict": True}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.messages[-1].role == "assistant":  # the answer goes on from there
        asked |= {"continue_final_message": True, "add_generation_prompt": False}
    if isinstance(request, MessagesRequest):
        asked["max_completion_tokens"] = min(request.max_tokens, context)
        asked["stop"] = request.stop_sequences
        asked["prompt_cache_key"] = request.metadata.user_id if request.metadata else None
        for name in ("temperature", "top_p", "top_k", "ignore_eos", "min_tokens", "seed"):
            asked[name] = getattr(request, name)
    return body | {name: value for name, value in asked.items() if value is not None}


def chat_messages(request: CountTokensRequest) -> list[dict[str, Any]]:
    """The conversation in the shape of chat completions, every message in its place."""
    found: list[dict[str, Any]] = []
    if request.system is not None:
        found += _system(request.system, "system")
    for at, message in enumerate(request.messages):
        path = f"messages.{at}.content"
        if message.role == "system":
            told = _system(message.content, path)
            if told and found and found[-1]["role"] in ("user", "tool"):
                told[0]["content"].insert(0, _part(""))  # or it would go on the user's last line
            found += told
        elif message.role == "assistant":
            found.append(_assistant(message.content, path))
        else:
            found += _user(message.content, path)
    return found


def _system(content: str | list[Block], path: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        first, _, rest = content.partition("\n")
        kept = [_part(rest if first.startswith(BILLING_HEADER) else content)]
    else:
        parts = [_part(_text(block, f"{path}.{at}")) for at, block in enumerate(content)]
        kept = [part for part in parts if not part["text"].startswith(BILLING_HEADER)]
    kept = [part for part in kept if part["text"]]
    return [{"role": "system", "content": kept}] if kept else []


def _user(content: str | list[Block], path: str) -> list[dict[str, Any]]:
    """A user's message; each tool result in it becomes a message of its own."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    found: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for at, block in enumerate(content):
        if block.type != "tool_result":
            parts.append(_part(_text(block, f"{path}.{at}")))
            continue
        if parts:
            found.append({"role": "user", "content": parts})
            parts = []
        found.append(_result(block, f"{path}.{at}"))
    if parts or not found:
        found.append({"role": "user", "content": parts})
    return found


def _result(block: Block, path: str) -> dict[str, Any]:
    if block.tool_use_id is None:
        raise _refused(f"{path}.tool_use_id", "field required")
    if isinstance(block.content, str):
        parts = [_part(block.content)]
    else:
        inner = enumerate(block.content or [])
        parts = [_part(_text(one, f"{path}.content.{at}")) for at, one in inner]
    said = parts[0]["text"] if parts else ""
    if block.is_error and "error" not in said.partition("\n")[0].lower():
        parts = [_part(f"Error: {said}"), *parts[1:]]  # or the model would take it for a result
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": parts}


def _assistant(content: str | list[Block], path: str) -> dict[str, Any]:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for at, block in enumerate(content):
        if block.type == "thinking":
            thoughts.append(block.thinking or unseal(block.signature) or "")
        elif block.type == "tool_use":
            calls.append(_call(block, f"{path}.{at}"))
        elif block.type != "redacted_thinking":  # another server's secret: nobody here can read it
            parts.append(_part(_text(block, f"{path}.{at}")))
    message: dict[str, Any] = {"role": "assistant", "content": parts}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Block, path: str) -> dict[str, Any]:
    if block.id is None or block.name is None:
        raise _refused(f"{path}.{'id' if block.id is None else 'name'}", "field required")
    arguments = json.dumps(block.input or {}, ensure_ascii=False)
    function = {"name": block.name, "arguments": arguments}
    return {"id": block.id, "type": "function", "function": function}


def _text(block: Block, path: str) -> str:
    """The text of a block that has one. Raises RequestError for images and the like."""
    source = block.source or {}
    if block.type == "text" and block.text is not None:
        return block.text
    if block.type == "document" and source.get("type") == "text":
        data = source.get("data")
        if isinstance(data, str):
            return data
    if block.type == "search_result" and isinstance(block.content, list):
        inner = enumerate(block.content)
        return "\n\n".join(_text(one, f"{path}.content.{at}") for at, one in inner)
    if block.type == "tool_reference" and block.tool_name:
        return block.tool_name
    if block.type == "text":
        raise _refused(f"{path}.text", "field required")
    raise _refused(path, f"{block.type[:40]} blocks are not supported: this model reads text only")


def _part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _tool(tool: InputTool, at: int) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise _refused(
            f"tools.{at}.type",
            f"{tool.type[:40]} is run by Anthropic's servers and does not exist here",
        )
    if tool.input_schema is None:
        raise _refused(f"tools.{at}.input_schema", "field required")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    if choice.type == "tool" and choice.name is None:
        raise _refused("tool_choice.name", "field required")
    named = {"type": "function", "function": {"name": choice.name}}
    words: dict[str, str | dict[str, Any]] = {"any": "required", "tool": named}
    asked = words.get(choice.type, choice.type)
    return {"tool_choice": asked, "parallel_tool_calls": not choice.disable_parallel_tool_use}


def _refused(path: str, why: str) -> RequestError:
    return RequestError(f"{path}: {why}", param=path)
