"""Text to tokens and back over HTTP, and prompts as they would be computed: what harnesses and
routers ask before they send work. No engine is needed for any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from isobath.model.text import BOS, EOS
from isobath.server.asked import request_id
from isobath.server.chat_body import ChatRequest, Rendering
from isobath.server.completions_body import CompletionRequest, prompts
from isobath.server.errors import RESPONSES, check_unicode, invalid
from isobath.server.fields import Lenient, TokenId
from isobath.server.models import answer
from isobath.server.state import ServerState
from isobath.server.turns import prepare


class TokenizeRequest(Rendering):
    """A text, or a conversation: one of prompt and messages."""

    model: Annotated[str, Field(max_length=1024)] | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(max_length=65536)] | None = None  # type: ignore[assignment]
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Lenient):
    """Ids of tokens."""

    model: Annotated[str, Field(max_length=1024)] | None = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]


def router(state: ServerState) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["tokens"])

    @routes.post("/tokenize", responses=RESPONSES)
    async def tokenize(body: TokenizeRequest, request: Request) -> Response:
        check_unicode(await request.body())
        state.models.resolve(body.model)
        ids = await asyncio.to_thread(_tokenized, state, body)
        told: dict[str, Any] = {
            "count": len(ids),
            "max_model_len": state.engine.limits.context,
            "tokens": ids,
            "token_strs": None,
        }
        if body.return_token_strs:
            told["token_strs"] = [state.engine.text.token_name(token) for token in ids]
        return answer(told)

    @routes.post("/detokenize", responses=RESPONSES)
    async def detokenize(body: DetokenizeRequest) -> Response:
        state.models.resolve(body.model)
        _check_ids(state, body.tokens)
        text = state.engine.text
        return answer({"prompt": text.decode(body.tokens, skip_special=False)})

    @routes.get("/tokenizer_info", responses=RESPONSES)
    async def tokenizer_info() -> Response:
        backend = state.engine
        return answer(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": BOS,
                "eos_token": EOS,
                "bos_token_id": backend.text.bos,
                "eos_token_id": backend.text.eos,
                "vocab_size": backend.text.vocab_size,
                "model_max_length": backend.limits.context,
                "chat_template": None,
            }
        )

    _renderers(routes, state)
    return routes


def _renderers(routes: APIRouter, state: ServerState) -> None:
    """The routes that say what would be computed."""

    @routes.post("/v1/chat/completions/render", responses=RESPONSES)
    async def render_chat(body: ChatRequest, request: Request) -> Response:
        check_unicode(await request.body())
        served = state.models.resolve(body.model)
        prepared = await asyncio.to_thread(lambda: prepare(state, body.ask(state, served, request)))
        return answer(_rendered(state, prepared.prompt, prepared.params.max_tokens))

    @routes.post("/v1/completions/render", responses=RESPONSES)
    async def render_completion(body: CompletionRequest) -> Response:
        state.models.resolve(body.model)
        bos = state.config.completions_add_bos and body.add_special_tokens is not False
        given = await prompts(body, state.engine.text, bos=bos)
        for prompt in given:
            _check_ids(state, prompt.ids)
        return answer([_rendered(state, prompt.ids, body.max_tokens) for prompt in given])


def _rendered(state: ServerState, ids: Sequence[int], max_tokens: int | None) -> dict[str, Any]:
    return {
        "request_id": request_id(None, "render"),
        "token_ids": ids,
        "model": state.models.first,
        "sampling_params": {"max_tokens": max_tokens},
    }


def _tokenized(state: ServerState, body: TokenizeRequest) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise invalid("one of prompt and messages is needed", "prompt")
    if body.prompt is not None:
        return state.engine.text.encode(body.prompt, bos=False)
    served = state.models.resolve(body.model)
    conversation = body.conversation(state, served)
    return state.chat_format.render(conversation, state.replay).token_ids


def _check_ids(state: ServerState, ids: Sequence[int]) -> None:
    size = state.engine.text.vocab_size
    if (largest := max(ids, default=0)) >= size:
        raise invalid(f"token {largest} is not in the vocabulary of {size}", "tokens")
