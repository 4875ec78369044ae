"""index_logits: score every visible compressed entry for every token."""

from typing import Protocol

import torch

from isobath.cache.view import CacheView, Pages
from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class IndexLogits(Protocol):
    """score[t, j] = sum_h weights[t, h] * relu(q[t, h] . key_j), float32.

    q: [T, Hi, d], FP8 in the cache's dialect or bf16/fp32 for a plain cache. weights: float32
    [T, Hi] (see index_query). cache: index rows. pages: where each sequence's entries are.
    sequence: int64 [T], each token's row of pages.table. visible: int64 [T], entries j < visible[t]
    are scored. Returns float32 [T, pages.capacity], -inf from visible[t] on.
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


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {name: args[name][rows] for name in ("q", "weights", "sequence", "visible")}


OP = Op(
    "index_logits",
    signature=IndexLogits,
    # fp32 sums of 128 exact FP8 products, then of Hi <= 64 heads with cancelling signs: 2^-14 of
    # the row's norm leaves two bits over sqrt(64 * 128) * 2^-24.
    agree=Relative(2**-14),
    must=("deterministic", "batch_invariant"),
    select=select,
    source="DeepSeek-V4 report, lightning indexer",
)
