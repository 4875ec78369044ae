"""The whole model on this device against the reference: logits of given text, and greedy tokens.

Two right engines do not agree bit for bit: where their sums round apart, an FP8 code flips, and the
difference spreads. How far that may go is not a constant but measured on the spot: quantisation
itself moves the logits by some distance (native against exact numerics, both by the reference on
the CPU). Each right engine lies about that far from the exact logits, so two of them lie at most
twice as far apart. One op of the bundled model that reads its bytes in the wrong dialect moves them
by six to eight times the distance, in the mean over positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from isobath.engine.llm import LLM
from isobath.engine.sampling import SamplingParams
from isobath.engine.score import score
from isobath.model.load import load
from isobath.ops.table import bind

PROMPTS = (
    "The json module",
    "import os\n\n\ndef main() -> None:\n    ",
    "A list comprehension is a concise way to",
    "Paris is the capital of",
)
NEW_TOKENS = 24
STEPS = 2 + 2 * len(PROMPTS)
Scores = dict[tuple[int, ...], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of the whole model. detail: what was found, in numbers."""

    name: str
    passed: bool
    detail: str
    reproduce: str


def check_model(
    llm: LLM, path: Path, *, advance: Callable[[str, int], None], reproduce: str
) -> list[Finding]:
    """Judge a loaded native LLM of the checkpoint `path` on PROMPTS, each continued by its own
    NEW_TOKENS greedy tokens."""
    params = SamplingParams(max_tokens=NEW_TOKENS, ignore_eos=True)
    done = llm.generate(list(PROMPTS), params)
    texts = [(*d.prompt_token_ids, *d.token_ids) for d in done]
    starts = [len(d.prompt_token_ids) - 1 for d in done]
    wanted, exact = (_reference(path, n, llm, texts, advance) for n in ("native", "exact"))
    got = {}
    for text in texts:
        got[text] = llm.score(text).double().cpu()
        advance("model", 1)
    return [
        judge_logits(got, wanted, exact, reproduce),
        judge_tokens(texts, starts, got, wanted, reproduce),
    ]


def _reference(
    path: Path,
    numerics: str,
    llm: LLM,
    texts: Sequence[tuple[int, ...]],
    advance: Callable[[str, int], None],
) -> Scores:
    """The logits of every position by the reference ops, on the CPU; one step a text."""
    cpu, ops = torch.device("cpu"), bind("reference")
    config, weights = load(path, numerics=numerics, dialect=llm.dialect, device=cpu, ops=ops)
    advance(f"reference, {numerics}", 1)
    found = {}
    for text in texts:
        found[text] = score(config, weights, ops, cpu, list(text), len(text)).double()
        advance(f"reference, {numerics}", 1 if numerics == "native" else 0)
    return found


def judge_logits(got: Scores, wanted: Scores, exact: Scores, reproduce: str) -> Finding:
    """Worst and mean relative distance of a position's logits, against twice the format's own."""
    mine, formats = (
        torch.cat([distance(one[text], wanted[text]) for text in wanted]) for one in (got, exact)
    )
    worst, mean = float(mine.max()), float(mine.mean())
    limits = 2 * float(formats.max()), 2 * float(formats.mean())
    passed = bool(mine.isfinite().all()) and worst <= limits[0] and mean <= limits[1]
    detail = f"{len(mine)} positions: worst {worst:.3f} (limit {limits[0]:.3f}), mean {mean:.3f} "
    detail += f"(limit {limits[1]:.3f}) of a position's logits"
    return Finding("logits", passed, detail, reproduce)


def judge_tokens(
    texts: Sequence[tuple[int, ...]],
    starts: Sequence[int],
    got: Scores,
    wanted: Scores,
    reproduce: str,
) -> Finding:
    """Whether each token that decoding chose is the reference's choice for the same text before it,
    or one that the reference puts so close that the difference of the logits covers the gap."""
    same, close, far = 0, 0, 0
    for text, start in zip(texts, starts, strict=True):
        for position in range(start, len(text) - 1):
            row, chosen = wanted[text][position], text[position + 1]
            gap = float(row.max() - row[chosen])
            # each of the two logits may be off by the largest difference in the row
            room = 2 * float((got[text][position] - row).abs().max())
            same, close, far = same + (gap == 0), close + (0 < gap <= room), far + (gap > room)
    detail = f"{same} of {same + close + far} tokens are the reference's, {close} within rounding"
    return Finding("greedy tokens", far == 0, f"{detail}, {far} wrong", reproduce)


def distance(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """Relative distance of each row: [T, vocab] twice -> [T]."""
    return (got - want).norm(dim=-1) / want.norm(dim=-1)
