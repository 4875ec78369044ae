"""index_topk: the k best-scored visible entries of each token."""

from typing import Protocol

import torch

from isobath.numerics.compare import Exact
from isobath.ops.contract import Arguments, Op


class IndexTopk(Protocol):
    """logits: float32 [T, N]. visible: int64 [T]. k: entries to keep.

    Returns int64 [T, min(k, N)]: the min(k, visible[t]) entries j < visible[t] of highest score,
    ties to the lower index, in ascending order of index, then -1. NaN counts as the highest.
    """

    def __call__(self, logits: torch.Tensor, visible: torch.Tensor, *, k: int) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {name: args[name][rows] for name in ("logits", "visible")}


OP = Op(
    "index_topk",
    signature=IndexTopk,
    agree=Exact(),
    must=("deterministic", "graph_safe", "batch_invariant"),
    select=select,
    asm={"gfx942": ("!scratch_",)},
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, sparse selection; the tie rule is ours",
)
