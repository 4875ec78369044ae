"""index_query on a CPU."""

import torch

from isobath.cache.layout import RowLayout
from isobath.numerics.dialect import Dialect
from isobath.ops.torch_rows import block_scales, quantize_blocks, rotate_


def index_query(
    q: torch.Tensor,
    cos_sin: torch.Tensor,
    weights: torch.Tensor,
    *,
    layout: RowLayout,
    dialect: Dialect,
) -> tuple[torch.Tensor, torch.Tensor]:
    _, heads, width = q.shape
    rotated = rotate_(q.to(torch.float32, copy=True), cos_sin).to(q.dtype)
    scaled = weights * (width**-0.5 * heads**-0.5)
    if layout.plain:
        return rotated, scaled
    codes, exponent = quantize_blocks(rotated.float(), dialect)
    scale = block_scales(dialect)[1].index_select(0, exponent.view(-1))
    return codes, scaled.mul_(scale.view(exponent.shape))
