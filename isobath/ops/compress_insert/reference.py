"""compress_insert in plain terms, fp64: one entry, one token, one pair at a time."""

import torch

from isobath.cache.view import CacheView, write_rows


def compress_insert(
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
) -> None:
    width, overlapping = norm_weight.shape[0], ape.shape[1] == 2 * norm_weight.shape[0]
    step = fresh.clone()
    step[:, 1] += ape[positions % len(ape)]
    for e in range(len(pool_rows)):
        k, gate = [], []
        for place, row in enumerate(pool_rows[e].tolist()):
            if row == -1:
                continue
            source = step[row] if row >= 0 else state[-2 - row]
            second = overlapping and place >= len(ape)
            channels = slice(width, 2 * width) if second else slice(0, width)
            k.append(source[0, channels].double())
            gate.append(source[1, channels].double())
        if not k or entry_rows[e] < 0:
            continue
        weights = torch.softmax(torch.stack(gate), 0)
        entry = (weights * torch.stack(k)).sum(0).to(dtype).double()
        entry = entry / torch.sqrt((entry * entry).mean() + eps) * norm_weight.double()
        rotated = _rotate(entry, cos_sin[e].double()).to(dtype)
        write_rows(cache, entry_rows[e : e + 1], rotated.unsqueeze(0))
    for token, row in zip(keep_tokens.tolist(), keep_rows.tolist(), strict=True):
        if token >= 0:
            state[row] = step[token]


def _rotate(x: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
    half, first = len(cos_sin) // 2, len(x) - len(cos_sin)
    out = x.clone()
    for i in range(half):
        a, b, cos, sin = x[first + 2 * i], x[first + 2 * i + 1], cos_sin[i], cos_sin[half + i]
        out[first + 2 * i], out[first + 2 * i + 1] = a * cos - b * sin, a * sin + b * cos
    return out
