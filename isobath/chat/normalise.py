"""From a request in OpenAI's shape to a Conversation.

Whatever a client can put into JSON comes out as a Conversation or as RequestError, never as another
exception. Nulls are empty, lists of text parts are joined, `developer` is the system's voice, both
names of the reasoning are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isobath.chat.conversation import Conversation


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
    raise AssertionError("lands next")
