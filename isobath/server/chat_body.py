"""What /v1/chat/completions accepts, and what it asks for as a turn."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Request
from pydantic import Field

from isobath.chat import Conversation, conversation_of
from isobath.engine.sampling import MAX_LOGPROBS
from isobath.engine.structure_chat import structure_for_chat
from isobath.server.asked import check_lengths, logprob_count, route_of
from isobath.server.errors import invalid
from isobath.server.fields import Count, GenerationFields, Lenient, Text
from isobath.server.state import Served, ServerState
from isobath.server.turns import Ask

LONG = 1 << 15
"""Characters."""
Objects = Annotated[list[dict[str, Any]], Field(max_length=4096)]


class Rendering(Lenient):
    """What a prompt is made of; also the body of /tokenize with messages."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=65536)]
    tools: Objects | None = None
    tool_choice: Annotated[str, Field(max_length=64)] | dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Annotated[str, Field(max_length=64)] | None = None
    thinking: bool | dict[str, Any] | None = None
    think: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @property
    def long(self) -> bool:
        """Whether rendering takes longer than other requests should wait for. Cheap and rough."""
        size = 0
        for message in self.messages:
            content = message.get("content")
            size += len(content) if isinstance(content, str) else 256
        return size > LONG or len(self.messages) > 100

    def conversation(
        self, state: ServerState, served: Served, response_format: dict[str, Any] | None = None
    ) -> Conversation:
        """What is to be rendered. Where the request leaves open how to think, what the model's name
        says holds, then the server's own defaults. Raises RequestError."""
        default = dict(state.config.default_chat_template_kwargs)
        if served.thinking is not None:
            default["thinking"] = served.thinking
        return conversation_of(
            self.messages,
            self.tools,
            reasoning_effort=self.reasoning_effort,
            thinking=self.think if self.thinking is None else self.thinking,
            chat_template_kwargs=self.chat_template_kwargs,
            default_kwargs=default,
            response_format=response_format,
            add_generation_prompt=self.add_generation_prompt is not False,
            continue_final_message=bool(self.continue_final_message),
        )


class ChatRequest(Rendering, GenerationFields):
    """The body of POST /v1/chat/completions."""

    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    parallel_tool_calls: bool | None = None
    include_reasoning: bool | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: Text | None = None

    def ask(self, state: ServerState, served: Served, request: Request) -> Ask:
        """The turn that is asked for. Raises RequestError or ApiError; may take a while."""
        field = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        most: int | None = getattr(self, field)
        check_lengths(state, most, self.min_tokens, field=field)
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs needs logprobs to be true", "top_logprobs")
        structure = structure_for_chat(
            self.response_format,
            self.tools,
            self.tool_choice,
            self.parallel_tool_calls,
            structured_outputs=self.structured_outputs,
        )
        conversation = self.conversation(state, served, self.response_format)
        count = (self.top_logprobs or 0) if self.logprobs else None
        params = self.sampling(
            state,
            logprobs=logprob_count(state, count, "top_logprobs"),
            prompt_logprobs=logprob_count(state, self.prompt_logprobs, "prompt_logprobs"),
            structure=structure,
        )
        return Ask(
            conversation,
            params,
            most,
            route_of(request, self),
            calls=self.tool_choice != "none",
            truncate=self.truncate_prompt_tokens,
        )
