"""index_query on a CPU."""

import torch

from isobath.cache.layout import RowLayout
from isobath.numerics import ue8m0
from isobath.numerics.dialect import Dialect
from isobath.ops.torch_rows import quantize_blocks, rotate_


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
    codes, byte = quantize_blocks(rotated.float(), dialect)
    return codes, scaled.mul_(ue8m0.decode(byte.to(torch.uint8)))
