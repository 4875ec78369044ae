"""How the next token is chosen from logits: greedy, or by temperature, top-k and top-p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from isobath.errors import RequestError


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What a request asks of generation.

    max_tokens: most tokens to generate. temperature: 0 is greedy. top_k: keep this many tokens (0:
    all). top_p: keep the smallest set with this probability. seed: makes sampling repeatable, None
    draws a fresh one. ignore_eos: go on after the end-of-sentence token. Raises RequestError for a
    value out of range.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        checks = {
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < float("inf"), "0 or more, and finite"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
        }
        for name, (holds, rule) in checks.items():
            if not holds:
                raise RequestError(
                    f"SamplingParams({name}=): must be {rule}", found=repr(getattr(self, name))
                )


class Sampler:
    """Chooses tokens for one request; owns its random stream."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """One token id from float32 logits [vocab]."""
        kept = (logits / self.params.temperature).double().cpu()
        values, ids = kept.sort(descending=True, stable=True)
        if self.params.top_k:
            values = values[: self.params.top_k]
        probabilities = values.softmax(0)
        before = probabilities.cumsum(0) - probabilities
        probabilities = torch.where(before < self.params.top_p, probabilities, 0.0)
        point = torch.rand((), generator=self._generator, dtype=torch.float64)
        target = point * probabilities.sum()
        choice = int((probabilities.cumsum(0) <= target).sum().clamp_max(len(probabilities) - 1))
        return int(ids[choice])


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token for each row of float32 logits [L, vocab]; greedy ties go to the lower id."""
    greedy = logits.argmax(-1).tolist()
    return [
        token if sampler.params.temperature == 0 else sampler.draw(row)
        for token, row, sampler in zip(greedy, logits, samplers, strict=True)
    ]
