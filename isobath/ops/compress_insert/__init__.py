"""compress_insert: carry a compressor's ring forward, and store the entries that come due."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from isobath.cache.view import CacheView, read_rows
from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class CompressInsert(Protocol):
    """Pool every window that a token of this step completes, then write the step into the ring.

    fresh: float32 [T, 2, C], the projections k (index 0) and gate (1) of this step's tokens,
    without ape. C = 2 * d for ratio 4 (overlapping windows), d for ratio 128.
    ape: float32 [ratio, C], added to a token's gate at row position % ratio.
    norm_weight: [d]. cos_sin: float32 [E, R] at the position of each window's first token.
    state: float32 [ring rows, 2, C]; k and gate with ape added. Changed in place. Row 0 belongs to
    nobody, as the null row of a cache does.
    pool_rows: int64 [E, n], n = 8 for ratio 4, 128 for ratio 128: the window's tokens oldest
    first; r >= 0 is row r of `fresh`, -1 is absent (gate -inf), r <= -2 is state row -2 - r.
    entry_rows: int64 [E], the cache row of each entry; -1 stores nothing.
    positions: int64 [T]. keep_tokens, keep_rows: int64 [W]: fresh token -> state row, applied
    after pooling; distinct rows. A pair (-1, -1) is padding and writes nothing, or row 0.

    single: promises that no sequence has two tokens in this step.

    Entry e = sum_n softmax_n(gate) * k, channel by channel; with ratio 4 the first four tokens use
    channels 0:d and the last four d:2d. Rounded to `dtype`, RMSNorm, rotation, rounded to `dtype`,
    quantised by the cache's layout, stored. Changes `state` and `cache`, returns None.
    """

    def __call__(
        self,
        fresh: torch.Tensor,
        ape: torch.Tensor,
        norm_weight: torch.Tensor,
        cos_sin: torch.Tensor,
        state: torch.Tensor,
        cache: CacheView,
        *,
        positions: torch.Tensor,
        pool_rows: torch.Tensor,
        entry_rows: torch.Tensor,
        keep_tokens: torch.Tensor,
        keep_rows: torch.Tensor,
        dtype: torch.dtype,
        eps: float,
        single: bool = False,
    ) -> None: ...


def observe(result: Any, args: Arguments) -> Mapping[str, torch.Tensor]:
    """Every row of the cache and of the ring but row 0."""
    cache: CacheView = args["cache"]
    rows = torch.arange(1, len(cache.bytes), device=cache.bytes.device)
    return {"cache": read_rows(cache, rows), "state": args["state"][1:].flatten(1)}


OP = Op(
    "compress_insert",
    signature=CompressInsert,
    agree=Relative(2**-5),  # FP8 code flips after a bf16 flip, as window_insert
    writes=("state", "cache"),
    observe=observe,
    backends=("triton", "torch"),
    rows={"cache": "entry_rows"},
    source="DeepSeek-V4 report, compressed sparse and heavily compressed attention",
)
