"""sparse_attention on a GPU: the kernel of attend without its first step."""

import torch

from isobath.cache.view import CacheView, Pages
from isobath.ops.attend.triton_kernel import attend


def sparse_attention(
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
) -> torch.Tensor:
    return attend(
        q,
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
        eps=None,
    )
