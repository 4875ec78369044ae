"""What /v1/completions accepts, and the prompts in it as token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from isobath.engine.sampling import MAX_LOGPROBS
from isobath.model.text import Text
from isobath.server.errors import invalid
from isobath.server.fields import GenerationFields, TokenId

MAX_PROMPTS = 2048
LONG = 1 << 15
"""Characters that take longer to encode than other requests should wait for."""

Ids = Annotated[list[TokenId], Field(fail_fast=True)]


def _form(prompt: Any) -> str:
    """Which of the four forms a prompt has, by its first element: judging by all of them would
    collect an error for each."""
    if not isinstance(prompt, list):
        return "text"
    first = prompt[0] if prompt else 0
    if isinstance(first, list):
        return "token_lists"
    return "texts" if isinstance(first, str) else "tokens"


PromptField = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Field(max_length=MAX_PROMPTS, fail_fast=True), Tag("texts")]
    | Annotated[list[TokenId], Field(fail_fast=True), Tag("tokens")]
    | Annotated[list[Ids], Field(max_length=MAX_PROMPTS, fail_fast=True), Tag("token_lists")],
    Discriminator(_form),
]


class CompletionRequest(GenerationFields):
    """The body of POST /v1/completions."""

    prompt: PromptField
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    suffix: str | None = None
    add_special_tokens: bool | None = None

    def check(self) -> None:
        """Refuse what is well-formed and still cannot be done."""
        if self.suffix:
            raise invalid("suffix is not supported", "suffix")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise invalid("best_of other than n is not supported", "best_of")


@dataclass(frozen=True, slots=True)
class Prompt:
    """ids: what the model reads. text: as it was sent, None if ids were."""

    ids: list[int]
    text: str | None


async def prompts(body: CompletionRequest, text: Text, *, bos: bool) -> list[Prompt]:
    """The prompts of a request in their order. bos: plain texts begin with one. Ids are taken as
    they are."""
    given = body.prompt
    if isinstance(given, str):
        return await _encoded([given], text, bos)
    if not given:
        raise invalid("prompt is empty", "prompt")
    if isinstance(given[0], str):
        return await _encoded(given, text, bos)
    lists: list[Any] = given if isinstance(given[0], list) else [given]
    return [Prompt(ids, None) for ids in lists]


async def _encoded(texts: Sequence[str], text: Text, bos: bool) -> list[Prompt]:
    def encode() -> list[Prompt]:
        return [Prompt(text.encode(one, bos=bos), one) for one in texts]

    if sum(map(len, texts)) < LONG:
        return encode()
    return await asyncio.to_thread(encode)
