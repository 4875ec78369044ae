"""compress_insert_pair: both compressors of a layer of ratio 4, that of the attended entries and
that of the indexer's keys: compress_insert twice, on the same windows, as one op."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from isobath.cache.view import CacheView
from isobath.numerics.compare import Relative
from isobath.ops.compress_insert import observe as observe_one
from isobath.ops.contract import Arguments, Op


class CompressInsertPair(Protocol):
    """compress_insert(first columns of fresh, ape, norm_weight, cos_sin, state, cache), and
    compress_insert(those after them, index_ape, index_norm, cos_sin, index_state, index_cache).

    fresh: float32 [T, at least 2 * C + 2 * I]: k and gate of the first compressor, C values each,
    then k and gate of the second, I each; what follows is ignored. ape: [ratio, C]. index_ape:
    [ratio, I]. The rest, of both, as in compress_insert: rows, entries and tokens are shared.
    """

    def __call__(
        self,
        fresh: torch.Tensor,
        ape: torch.Tensor,
        norm_weight: torch.Tensor,
        state: torch.Tensor,
        cache: CacheView,
        index_ape: torch.Tensor,
        index_norm: torch.Tensor,
        index_state: torch.Tensor,
        index_cache: CacheView,
        cos_sin: torch.Tensor,
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
    index = observe_one(None, {"cache": args["index_cache"], "state": args["index_state"]})
    return {**observe_one(None, args), **{f"index_{name}": t for name, t in index.items()}}


OP = Op(
    "compress_insert_pair",
    signature=CompressInsertPair,
    agree=Relative(2**-5),  # as compress_insert
    writes=("state", "cache", "index_state", "index_cache"),
    observe=observe,
    backends=("triton", "torch"),
    rows={"cache": "entry_rows", "index_cache": "entry_rows"},
    source="DeepSeek-V4 report, compressed sparse attention and its indexer",
)
