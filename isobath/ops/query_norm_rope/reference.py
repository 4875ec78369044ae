"""query_norm_rope in plain terms, fp64, one pair at a time."""

import torch


def query_norm_rope(q: torch.Tensor, cos_sin: torch.Tensor, *, eps: float) -> torch.Tensor:
    wide, angles = q.double(), cos_sin.double()
    out = wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + eps)
    half, first = cos_sin.shape[1] // 2, q.shape[-1] - cos_sin.shape[1]
    for i in range(half):
        cos, sin = angles[:, i, None], angles[:, half + i, None]
        a, b = out[..., first + 2 * i].clone(), out[..., first + 2 * i + 1].clone()
        out[..., first + 2 * i] = a * cos - b * sin
        out[..., first + 2 * i + 1] = a * sin + b * cos
    return out.to(q.dtype)
