"""index_logits in plain terms: fp64, one token at a time over the entries it may see."""

import torch

from isobath.cache.view import CacheView, Pages, read_rows
from isobath.numerics.dialect import dialect_of


def index_logits(
    q: torch.Tensor,
    weights: torch.Tensor,
    cache: CacheView,
    *,
    pages: Pages,
    sequence: torch.Tensor,
    visible: torch.Tensor,
) -> torch.Tensor:
    if q.dtype.itemsize == 1:
        cache.expect(dialect_of(q.dtype), op="index_logits")
    out = torch.full((len(q), pages.capacity), -torch.inf, device=q.device)
    for t, count in enumerate(visible.tolist()):
        entries = torch.arange(count, device=q.device)
        keys = read_rows(cache, pages.rows(sequence[t], entries)).double()
        dots = q[t].float().double() @ keys.T
        relu = torch.where(dots < 0, 0.0, dots)  # NaN stays NaN
        out[t, :count] = (weights[t].double().unsqueeze(1) * relu).sum(0).float()
    return out
