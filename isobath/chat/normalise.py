"""From a request in OpenAI's shape to a Conversation.

Whatever a client can put into JSON comes out as a Conversation or as RequestError, never as another
exception. Nulls are empty, lists of text parts are joined, `developer` is the system's voice, both
names of the reasoning are read. Fields that are not known are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isobath.chat.conversation import Conversation, Message, Role, Tool, ToolCall
from isobath.chat.dsml import to_json
from isobath.chat.switches import Switches
from isobath.errors import RequestError

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "latest_reminder": "latest_reminder",
}
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Kinds of content parts that are text, and where it stands in them."""
MAX_NAME = 256
UNWRITABLE = frozenset('"<>\r\n\0')
"""What a name may not contain: it stands unescaped in an attribute."""


def conversation_of(
    messages: Any,
    tools: Any = None,
    *,
    reasoning_effort: Any = None,
    thinking: Any = None,
    chat_template_kwargs: Any = None,
    default_kwargs: Mapping[str, Any] | None = None,
    response_format: Any = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> Conversation:
    """The conversation of a chat completion request; arguments are the fields of its body.

    thinking: DeepSeek's {"type": ...} or a bool (ds4's `think`). default_kwargs: the server's own
    chat_template_kwargs, behind everything in the request. Raises RequestError.
    """
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", messages, "a list with at least one message")
    switches = Switches.of(reasoning_effort, thinking, chat_template_kwargs, default_kwargs)
    return Conversation(
        messages=tuple(_message(m, f"messages.{i}") for i, m in enumerate(messages)),
        tools=tools_of(tools),
        thinking=switches.thinking,
        effort=switches.effort,
        drop_thinking=switches.drop_thinking,
        response_format=_schema(response_format),
        add_generation_prompt=bool(add_generation_prompt) and not continue_final_message,
        continue_final_message=bool(continue_final_message),
    )


def tools_of(tools: Any) -> tuple[Tool, ...]:
    """The tools of a request's `tools` field. Raises RequestError."""
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise _wrong("tools", tools, "a list")
    found: dict[str, Tool] = {}
    for i, tool in enumerate(tools):
        at = f"tools.{i}"
        if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
            raise _wrong(at, tool, 'an object of type "function"')
        function = _mapping(tool.get("function"), f"{at}.function")
        name = _name(function.get("name"), f"{at}.function.name")
        if name in found:
            at = f"{at}.function.name"
            raise RequestError(f"{at}: {name!r} is there twice", do="rename one", param=at)
        if function.get("parameters") is not None:
            _mapping(function["parameters"], f"{at}.function.parameters")
        found[name] = Tool(name, function)
    return tuple(found.values())


def text_of(content: Any, at: str) -> str:
    """The text of a message's content: a string, null, or a list of text parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise _wrong(at, content, "a string, null or a list of text parts")
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and isinstance(kind, str) and kind in TEXT_PARTS:
            texts.append(_text(part.get(TEXT_PARTS[kind]), f"{at}.{i}.{TEXT_PARTS[kind]}"))
        else:
            found = f"a part of type {kind!r}" if isinstance(part, Mapping) else _kind(part)
            raise RequestError(
                f"{at}.{i}: not text",
                found=found[:200],
                effect="the model reads text alone",
                do='send parts of type "text"',
                param=f"{at}.{i}",
            )
    return "\n\n".join(texts)


def _message(message: Any, at: str) -> Message:
    message = _mapping(message, at)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RequestError(
            f"{at}.role is unknown",
            found=repr(role)[:80],
            do="use one of " + ", ".join(ROLES),
            param=f"{at}.role",
        )
    ours = ROLES[role]
    task = message.get("task")
    return Message(
        role=ours,
        content=text_of(message.get("content"), f"{at}.content"),
        reasoning=_reasoning(message, at) if ours == "assistant" else "",
        calls=_calls(message.get("tool_calls"), at) if ours == "assistant" else (),
        call_id=_text(message.get("tool_call_id"), f"{at}.tool_call_id") if ours == "tool" else "",
        task=_text(task, f"{at}.task") or None if ours == "user" else None,
    )


def _reasoning(message: Mapping[str, Any], at: str) -> str:
    """DeepSeek's name for it goes before vLLM's."""
    both = [_text(message.get(name), f"{at}.{name}") for name in ("reasoning_content", "reasoning")]
    return both[0] or both[1]


def _calls(calls: Any, at: str) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise _wrong(f"{at}.tool_calls", calls, "a list or null")
    found = []
    for i, call in enumerate(calls):
        here = f"{at}.tool_calls.{i}"
        call = _mapping(call, here)
        function = _mapping(call.get("function"), f"{here}.function")
        name = _name(function.get("name"), f"{here}.function.name")
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            try:
                arguments = to_json(arguments)
            except RecursionError as error:
                deep = f"{here}.function.arguments"
                raise RequestError(f"{deep}: nested too deeply", param=deep) from error
        arguments = _text(arguments, f"{here}.function.arguments")
        found.append(ToolCall(_text(call.get("id"), f"{here}.id"), name, arguments))
    return tuple(found)


def _schema(response_format: Any) -> Mapping[str, Any] | None:
    """The schema that a response format asks for, which alone has a place in the prompt."""
    if response_format is None:
        return None
    kind = _mapping(response_format, "response_format").get("type")
    if kind in ("text", "json_object"):
        return None
    if kind != "json_schema":
        raise _wrong("response_format.type", kind, '"text", "json_object" or "json_schema"')
    at = "response_format.json_schema"
    schema = _mapping(response_format.get("json_schema"), at).get("schema")
    return None if schema is None or schema is True else _mapping(schema, f"{at}.schema")


def _name(name: Any, at: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or UNWRITABLE & set(name):
        raise _wrong(at, name, f"1 to {MAX_NAME} characters without quotes, brackets, line ends")
    return name


def _mapping(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(at, value, "an object")
    return value


def _text(value: Any, at: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise _wrong(at, value, "a string")


def _wrong(at: str, value: Any, wanted: str) -> RequestError:
    return RequestError(f"{at} should be {wanted}", found=_kind(value), param=at)


def _kind(value: Any) -> str:
    """What a value is, without showing much of it."""
    if value is None:
        return "null"
    if isinstance(value, str | bool | int | float):
        return repr(value)[:80]
    return f"a {'list' if isinstance(value, list) else 'JSON object'} of {len(value)}"
