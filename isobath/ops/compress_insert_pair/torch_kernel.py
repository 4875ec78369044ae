"""compress_insert_pair on a CPU: compress_insert's kernel on both compressors."""

from typing import Any

import torch

from isobath.cache.view import CacheView
from isobath.ops.compress_insert.torch_kernel import compress_insert


def compress_insert_pair(
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
) -> None:
    width, index_width = 2 * ape.shape[1], 2 * index_ape.shape[1]
    low, high = fresh[:, :width], fresh[:, width : width + index_width]
    shared: dict[str, Any] = {
        "positions": positions,
        "pool_rows": pool_rows,
        "entry_rows": entry_rows,
        "keep_tokens": keep_tokens,
        "keep_rows": keep_rows,
        "dtype": dtype,
        "eps": eps,
        "single": single,
    }
    step = low.unflatten(1, (2, -1))
    compress_insert(step, ape, norm_weight, cos_sin, state, cache, **shared)
    step = high.unflatten(1, (2, -1))
    compress_insert(step, index_ape, index_norm, cos_sin, index_state, index_cache, **shared)
