"""attend in plain terms: its two parts, one after the other."""

import torch

from isobath.cache.view import CacheView, Pages
from isobath.ops.query_norm_rope.reference import query_norm_rope
from isobath.ops.sparse_attention.reference import sparse_attention


def attend(
    q: torch.Tensor,
    window: CacheView,
    compressed: CacheView | None,
    sink: torch.Tensor,
    cos_sin: torch.Tensor,
    *,
    window_rows: torch.Tensor,
    pages: Pages | None,
    sequence: torch.Tensor,
    visible: torch.Tensor | None,
    selected: torch.Tensor | None,
    scale: float,
    single: bool,
    eps: float,
) -> torch.Tensor:
    return sparse_attention(
        query_norm_rope(q, cos_sin, eps=eps),
        window,
        compressed,
        sink,
        cos_sin,
        window_rows=window_rows,
        pages=pages,
        sequence=sequence,
        visible=visible,
        selected=selected,
        scale=scale,
        single=single,
    )
