"""index_query in plain terms: fp64 rotation, one rounding, then the common quantisation rule."""

import torch

from isobath.cache.layout import RowLayout
from isobath.numerics import fp8, ue8m0
from isobath.numerics.dialect import Dialect


def index_query(
    q: torch.Tensor,
    cos_sin: torch.Tensor,
    weights: torch.Tensor,
    *,
    layout: RowLayout,
    dialect: Dialect,
) -> tuple[torch.Tensor, torch.Tensor]:
    _, heads, width = q.shape
    turned, angles = q.double(), cos_sin.double()
    half, first = cos_sin.shape[1] // 2, width - cos_sin.shape[1]
    for i in range(half):
        cos, sin = angles[:, i, None], angles[:, half + i, None]
        a, b = turned[..., first + 2 * i].clone(), turned[..., first + 2 * i + 1].clone()
        turned[..., first + 2 * i] = a * cos - b * sin
        turned[..., first + 2 * i + 1] = a * sin + b * cos
    values = turned.to(q.dtype)
    scaled = weights.double() / (width * heads) ** 0.5
    if layout.plain:
        return values, scaled.float()
    quantized = fp8.quantize(values, dialect, (1, width))
    scale = ue8m0.decode(quantized.scale).squeeze(-1).double()
    return quantized.data, (scaled * scale).float()
