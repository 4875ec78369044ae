"""What a conversation is, in our words: messages, tools, and the switches that shape its prompt.

Every API (OpenAI's chat, Anthropic's messages, responses) is brought into these records before a
prompt is made of it; chat/normalise.py does so for OpenAI's. Here text is text: content is never
null and never a list of parts. The records check nothing, chat/render.py refuses what it cannot
render.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool", "latest_reminder"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. function: the object as the client sent it, which is what the
    prompt shows; parameters: its JSON schema, empty if it has none."""

    name: str
    function: Mapping[str, Any]

    @property
    def parameters(self) -> Mapping[str, Any]:
        found = self.function.get("parameters")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call in an assistant's turn. arguments: JSON text, or any text if the model wrote none."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message. reasoning and calls belong to an assistant, call_id to a tool's result; task is
    one of the encoder's quick instructions on a user's turn ("title", "query", ...)."""

    role: Role
    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that a prompt is made of.

    thinking: None leaves it to the format (on). effort: a word of OpenAI's or DeepSeek's scale
    ("none" ... "max"), None is the format's own default. drop_thinking: leave out the reasoning of
    turns before the last user's; never done when there are tools. response_format: a JSON schema to
    put into the prompt. continue_final_message: the last message is an assistant's, left open.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    thinking: bool | None = None
    effort: str | None = None
    drop_thinking: bool = True
    response_format: Mapping[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt: its text, and the token ids to compute. thinking: it ends inside reasoning."""

    text: str
    token_ids: list[int] = field(default_factory=list)
    thinking: bool = False
