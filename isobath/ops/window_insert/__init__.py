"""window_insert: norm, rotate, quantise and store one key/value row a token."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from isobath.cache.view import CacheView, read_rows
from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class WindowInsert(Protocol):
    """kv: [T, d] projection output. norm_weight: [d]. cos_sin: float32 [T, R]. slots: int64 [T].

    Row t = RMSNorm(kv_t) * norm_weight, its last R values rotated, rounded to kv.dtype, then
    quantised by the cache's layout and stored at row slots[t]; slot -1 writes nothing. Changes
    `cache` in place, returns None.
    """

    def __call__(
        self,
        kv: torch.Tensor,
        norm_weight: torch.Tensor,
        cos_sin: torch.Tensor,
        cache: CacheView,
        slots: torch.Tensor,
        *,
        eps: float,
    ) -> None: ...


def observe(result: Any, args: Arguments) -> Mapping[str, torch.Tensor]:
    """Every row of the cache: those of `slots` and the poison that must still be in the others."""
    cache: CacheView = args["cache"]
    return {"cache": read_rows(cache, torch.arange(1, len(cache.bytes), device=cache.bytes.device))}


OP = Op(
    "window_insert",
    signature=WindowInsert,
    # A bf16 flip before quantisation can move an FP8 value by one code, 2^-3 of itself; few of a
    # row's 448 values flip, so the row's error stays near sqrt(n_flips / 448) * 2^-3.
    agree=Relative(2**-5),
    writes=("cache",),
    observe=observe,
    backends=("triton", "torch"),
    rows={"cache": "slots"},
    source="DeepSeek-V4 inference code, attention: kv_norm, apply_rotary_emb, act_quant",
)
