"""window_insert on a CPU. Padding is stored at the null row."""

import torch

from isobath.cache.view import CacheView
from isobath.ops.torch_rows import rotate_, store


def window_insert(
    kv: torch.Tensor,
    norm_weight: torch.Tensor,
    cos_sin: torch.Tensor,
    cache: CacheView,
    slots: torch.Tensor,
    *,
    eps: float,
) -> None:
    width = (kv.shape[-1],)
    normed = torch.nn.functional.rms_norm(kv.float(), width, norm_weight.float(), eps)
    store(cache, slots, rotate_(normed, cos_sin).to(kv.dtype).float())
