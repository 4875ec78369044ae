"""A backend that says what it is told, token by token: for what a model cannot be made to say.

Everything but the choice of tokens is real: the tokenizer, stop texts, the records. A token's
log-probability, when it is asked for, is minus a thousandth of its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from isobath.engine.async_llm import Piece
from isobath.engine.output import Output, joined
from isobath.engine.process import Limits
from isobath.engine.request import Finished, Token
from isobath.engine.sampling import SamplingParams
from isobath.engine.statistics import EngineStatistics
from isobath.model.text import Text
from isobath.server.backend import Route


class Scripted:
    """Answers each prompt with the next of `answers`; prompts: what it was asked. An end token in
    an answer has to be written there."""

    alive = True

    def __init__(self, text: Text, limits: Limits, answers: Sequence[str]) -> None:
        self.text, self.limits = text, limits
        self._answers = iter(answers)
        self.prompts: list[list[int]] = []

    def statistics(self) -> list[EngineStatistics]:
        return [EngineStatistics()]

    async def reset_prefix_cache(self) -> None:
        pass

    async def close(self, *, drain: bool = False, timeout: float = 5.0) -> None:
        pass

    async def generate(
        self, prompt: Sequence[int], params: SamplingParams, route: Route | None = None
    ) -> AsyncGenerator[Piece, None]:
        self.prompts.append(list(prompt))
        ids = self.text.encode(next(self._answers), bos=False)[: params.max_tokens]
        reason = "stop" if ids[-1] == self.text.eos else "length"
        for index in range(params.n):
            output = Output(list(prompt), index, params, self.text)
            for token in ids:
                await asyncio.sleep(0)
                record = (
                    None if params.logprobs is None else (-token / 1000, ((token, -token / 1000),))
                )
                parts, stopped = output.add(Token(0, index, token, *(record or ())))
                told = () if record is None else (record,)
                yield Piece(index, joined(parts), (token,), told, parts=parts)
                if stopped:
                    break
            rest = output.finish()
            whole = output.completion(Finished(0, index, reason))
            yield Piece(index, joined(rest), completion=whole, parts=rest)
