"""index_logits: score every visible compressed entry for every token."""

from collections.abc import Mapping
from typing import Protocol

import torch

from isobath.cache.view import CacheView, Pages
from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op
from isobath.ops.work import scored


class IndexLogits(Protocol):
    """score[t, j] = sum_h weights[t, h] * relu(q[t, h] . key_j), float32.

    q: [T, Hi, d], FP8 in the cache's dialect or bf16/fp32 for a plain cache. weights: float32
    [T, Hi] (see index_query). cache: index rows. pages: where each sequence's entries are.
    sequence: int64 [T], each token's row of pages.table. visible: int64 [T], entries j < visible[t]
    are scored. Returns float32 [T, pages.capacity]; what it holds from visible[t] on means nothing.
    """

    def __call__(
        self,
        q: torch.Tensor,
        weights: torch.Tensor,
        cache: CacheView,
        *,
        pages: Pages,
        sequence: torch.Tensor,
        visible: torch.Tensor,
    ) -> torch.Tensor: ...


def observe(result: torch.Tensor, args: Arguments) -> Mapping[str, torch.Tensor]:
    """The scores, -inf where there are none."""
    entries = torch.arange(result.shape[1], device=result.device)
    hidden = entries >= args["visible"].to(result.device).unsqueeze(1)
    return {"scores": result.masked_fill(hidden, -torch.inf)}


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {name: args[name][rows] for name in ("q", "weights", "sequence", "visible")}


OP = Op(
    "index_logits",
    signature=IndexLogits,
    # Products of FP8 codes are exact; a matrix unit may cut each where the largest of its 32 has
    # its 13th fractional bit (reported of NVIDIA's Hopper). 128 such cuts of random sign against
    # 128 products, the largest 8 times the mean one: 2^-13 * 8 / sqrt(3) = 2^-11 of a score; then
    # sums over heads with cancelling signs. Two bits to spare.
    agree=Relative(2**-9),
    must=("deterministic", "graph_safe", "batch_invariant"),
    observe=observe,
    select=select,
    asm={"gfx942": ("_fp8_fp8", "!scratch_")},
    backends=("triton", "torch"),
    rows={"cache": "pages"},
    work=scored,
    source="DeepSeek-V4 report, lightning indexer",
)
