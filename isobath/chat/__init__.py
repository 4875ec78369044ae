"""DeepSeek-V4's chat text: conversations to prompts, and answers back to reasoning, content, calls.

    format = ChatFormat.load(folder, text)
    conversation = conversation_of(body["messages"], body.get("tools"))
    rendered = format.render(conversation, replay)
    machine = Machine(format, rendered.token_ids, conversation.tools, replay=replay)
    for token_id, piece in parts: deltas = machine.feed(token_id, piece)
    deltas = machine.finish("stop"); machine.message; machine.finish_reason

Knows the checkpoint's folder and tokenizer, and no engine or HTTP.
"""

from isobath.chat.conversation import Conversation, Message, Rendered, Tool, ToolCall
from isobath.chat.deltas import (
    Answer,
    CallArguments,
    CallBegin,
    Content,
    Delta,
    Reasoning,
    joined,
)
from isobath.chat.format import VARIANTS, ChatFormat
from isobath.chat.machine import Machine
from isobath.chat.normalise import conversation_of
from isobath.chat.replay import Block, Replay, call_id

__all__ = [
    "VARIANTS",
    "Answer",
    "Block",
    "CallArguments",
    "CallBegin",
    "ChatFormat",
    "Content",
    "Conversation",
    "Delta",
    "Machine",
    "Message",
    "Reasoning",
    "Rendered",
    "Replay",
    "Tool",
    "ToolCall",
    "call_id",
    "conversation_of",
    "joined",
]
