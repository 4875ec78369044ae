"""window_insert in plain terms: fp64 norm and rotation, one rounding, the cache's own write."""

import torch

from isobath.cache.view import CacheView, write_rows


def window_insert(
    kv: torch.Tensor,
    norm_weight: torch.Tensor,
    cos_sin: torch.Tensor,
    cache: CacheView,
    slots: torch.Tensor,
    *,
    eps: float,
) -> None:
    wide = kv.double()
    row = wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + eps) * norm_weight.double()
    half, first = cos_sin.shape[1] // 2, kv.shape[1] - cos_sin.shape[1]
    for i in range(half):
        cos, sin = cos_sin[:, i].double(), cos_sin[:, half + i].double()
        a, b = row[:, first + 2 * i].clone(), row[:, first + 2 * i + 1].clone()
        row[:, first + 2 * i] = a * cos - b * sin
        row[:, first + 2 * i + 1] = a * sin + b * cos
    write_rows(cache, slots, row.to(kv.dtype))
