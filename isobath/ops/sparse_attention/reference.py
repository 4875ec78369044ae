"""sparse_attention in plain terms: fp64, one token at a time over the rows it attends."""

import torch

from isobath.cache.view import CacheView, Pages, read_rows


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
    out = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    for t in range(len(q)):
        rows = window_rows[t]
        keys = read_rows(window, rows[rows >= 0]).double()
        if compressed is not None:
            assert pages is not None and visible is not None
            entries = torch.arange(int(visible[t]), device=q.device)
            if selected is not None:
                entries = selected[t][selected[t] >= 0]
            entry_rows = pages.rows(sequence[t], entries)
            keys = torch.cat((keys, read_rows(compressed, entry_rows).double()))
        for h in range(q.shape[1]):
            scores = torch.cat((keys @ q[t, h].double() * scale, sink[h : h + 1].double()))
            weights = torch.softmax(scores, 0)[:-1]
            out[t, h] = _turn_back(weights @ keys, cos_sin[t].double())
    return out.to(q.dtype)


def _turn_back(x: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
    half, first = len(cos_sin) // 2, len(x) - len(cos_sin)
    out = x.clone()
    for i in range(half):
        a, b, cos, sin = x[first + 2 * i], x[first + 2 * i + 1], cos_sin[i], cos_sin[half + i]
        out[first + 2 * i], out[first + 2 * i + 1] = a * cos + b * sin, b * cos - a * sin
    return out
