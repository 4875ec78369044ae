"""LLM: a checkpoint, ready to generate and to score, in one object.

from isobath import LLM, SamplingParams
llm = LLM()                                     # the bundled model; or a checkpoint's folder
[done] = llm.generate(["The difflib module"], SamplingParams(max_tokens=64))
print(done.text)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from isobath.engine.runner import Runner, Running
from isobath.engine.sampling import Sampler, SamplingParams
from isobath.errors import ConfigError, RequestError
from isobath.model.load import load
from isobath.model.progress import LoadProgress
from isobath.model.text import Detokenizer, Text
from isobath.ops.table import bind
from isobath.target import detect

BUNDLED = Path(__file__).parents[1] / "models" / "isobath_tiny"


@dataclass(frozen=True, slots=True)
class Completion:
    """One prompt's outcome. finish_reason: "stop" (end of sentence) or "length"."""

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    finish_reason: str


class LLM:
    """A DeepSeek-V4 checkpoint loaded for inference.

    path: a folder in the published format; None is the bundled isobath-tiny. numerics: "native"
    (quantised activations, caches and experts) or "exact" (fp32, nothing rounded). dialect: of FP8
    bytes in memory, "auto" (that of the device it runs on), "ocp" or "fnuz"; results do not
    depend on it. max_batched_tokens: most tokens of one step; prompts longer than it are processed
    in chunks. Raises CheckpointError or ConfigError.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        numerics: str = "native",
        dialect: str = "auto",
        max_batched_tokens: int = 512,
    ) -> None:
        if numerics not in ("native", "exact"):
            raise ConfigError(f"numerics={numerics!r}", found='known: "native", "exact"')
        if max_batched_tokens < 1:
            raise ConfigError("max_batched_tokens must be positive", found=str(max_batched_tokens))
        folder = BUNDLED if path is None else Path(path)
        target = detect("cpu", dialect)  # the ops bound below run there, whatever else is present
        self.numerics, self.dialect, device = numerics, target.dialect, target.device
        ops = bind("torch")
        with LoadProgress(folder.name) as progress:
            self.config, weights = load(
                folder,
                numerics=numerics,
                dialect=self.dialect,
                device=device,
                ops=ops,
                progress=progress,
            )
        self._folder = folder
        self._text: Text | None = None
        self._runner = Runner(
            self.config, weights, ops, device, max_batched_tokens=max_batched_tokens
        )

    @property
    def text(self) -> Text:
        """The checkpoint's tokenizer, read when it is first needed."""
        if self._text is None:
            self._text = Text(self._folder)
        return self._text

    def generate(
        self,
        prompts: str | Sequence[str] | Sequence[Sequence[int]],
        params: SamplingParams | None = None,
    ) -> list[Completion]:
        """Complete prompts (texts, or token ids taken as they are), all in one batch.

        A single text counts as a list of one. Raises RequestError before any work is done when a
        prompt is empty, too long, or holds an id outside the vocabulary.
        """
        items: list[str | Sequence[int]] = [prompts] if isinstance(prompts, str) else [*prompts]
        sequences = self._sequences(items, params or SamplingParams())
        for _ in self._runner.run(sequences):
            pass
        return [self._completion(s) for s in sequences]

    def stream(
        self, prompt: str, params: SamplingParams | None = None
    ) -> Generator[str, None, Completion]:
        """Complete one prompt, yielding text as soon as it is certain; returns the Completion."""
        sequences = self._sequences([prompt], params or SamplingParams())
        pieces = Detokenizer(self.text)
        for _, token in self._runner.run(sequences):
            if piece := pieces.add(token):
                yield piece
        if rest := pieces.finish():
            yield rest
        return self._completion(sequences[0])

    def score(self, token_ids: Sequence[int], *, chunk_size: int | None = None) -> torch.Tensor:
        """Logits of every position: float32 [T, vocab], row t from tokens 0..t.

        token_ids are taken as they are (no BOS is added). chunk_size: tokens a step, at most
        max_batched_tokens; by default that. Raises RequestError as generate() does.
        """
        size = self._runner.max_batched_tokens if chunk_size is None else chunk_size
        if not 1 <= size <= self._runner.max_batched_tokens:
            raise RequestError(
                f"score(chunk_size={chunk_size})",
                found=f"max_batched_tokens={self._runner.max_batched_tokens}",
                do="pass a chunk_size from 1 to that",
            )
        return self._runner.score(self._checked(token_ids, new_tokens=0), size)

    def _sequences(
        self, prompts: Sequence[str | Sequence[int]], params: SamplingParams
    ) -> list[Running]:
        ids = [
            self._checked(self.text.encode(p) if isinstance(p, str) else p, params.max_tokens)
            for p in prompts
        ]
        return [Running(i, Sampler(params), self.config.eos_token_id) for i in ids]

    def _checked(self, token_ids: Sequence[int], new_tokens: int) -> list[int]:
        ids, limit = list(token_ids), self.config.max_position_embeddings
        if not ids:
            raise RequestError("an empty prompt", do="pass at least one token")
        if len(ids) + new_tokens > limit:
            raise RequestError(
                f"a prompt of {len(ids)} tokens and {new_tokens} new ones",
                found=f"this model's context is {limit} tokens",
                do="shorten the prompt or lower max_tokens",
            )
        for position, token in enumerate(ids):
            if not 0 <= token < self.config.vocab_size:
                raise RequestError(
                    f"token id {token} at position {position}",
                    found=f"the vocabulary has ids 0 to {self.config.vocab_size - 1}",
                    do="encode the prompt with this checkpoint's tokenizer",
                )
        return ids

    def _completion(self, s: Running) -> Completion:
        prompt, new = s.tokens[: s.prompt_len], s.tokens[s.prompt_len :]
        text = self.text.decode(new)
        return Completion(text, new, prompt, s.finish_reason)
