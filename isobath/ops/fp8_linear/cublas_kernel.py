"""fp8_linear through cuBLASLt's block-scaled FP8 product (torch._scaled_mm), on sm_90.

The library wants float32 factors: those of activations stored block by block, four rows or a
multiple; those of weights in rows of four or a multiple. Weights are padded with zeros once at
load; activations only where their number or K is uneven, which V4-Flash's widths are not. Few
tokens go to the Triton kernel; a row's last bit may then depend on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from isobath.numerics import ue8m0
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.fp8_linear.triton_kernel import fp8_linear as few
from isobath.ops.libraries import require_blockwise
from isobath.ops.tl_scales import factors
from isobath.target import detect

require_blockwise("fp8_linear/cublas", detect(), torch.version.cuda)

MANY_TOKENS = 256
"""From this many on the library was the faster on most of V4-Flash's shapes: H200, 2026-11-22, one
run of six shapes; at 1,024 tokens on all of them."""

ROWS, BLOCKS = 4, 4
"""What the numbers of activation rows and of blocks along K must be multiples of."""


@dataclass(frozen=True, slots=True)
class Factored:
    """data: FP8 [N', K'], padded with zeros. factors: float32 [N'/128, K'/128]. rows, width: N and
    K. given: the weight as it came, whose bytes `data` shares unless it is padded."""

    data: torch.Tensor
    factors: torch.Tensor
    rows: int
    width: int
    given: Fp8Tensor


def prepare(weight: Fp8Tensor) -> Factored:
    rows, width = weight.data.shape
    data = _padded(weight.data, -rows % 128, -width % (128 * BLOCKS))
    scale = _padded(weight.scale, 0, data.shape[1] // 128 - weight.scale.shape[1])
    return Factored(data, ue8m0.decode(scale).contiguous(), rows, width, weight)


def fp8_linear(x: Fp8Tensor, weight: Factored) -> torch.Tensor:
    tokens = len(x.data)
    if tokens < MANY_TOKENS or x.dialect != weight.given.dialect:
        return few(x, weight.given)
    data, scale = x.data, x.scale
    if tokens % ROWS or weight.width != weight.data.shape[1]:
        columns = weight.data.shape[1] - weight.width
        data = _padded(data, -tokens % ROWS, columns)
        scale = _padded(scale, -tokens % ROWS, columns // 128)
    product = torch._scaled_mm(
        data,
        weight.data.t(),
        scale_a=factors(scale, transposed=True),
        scale_b=weight.factors.t(),
        out_dtype=torch.bfloat16,
    )
    return product[:tokens, : weight.rows].contiguous()


def _padded(t: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """`t` with rows and columns of zero bytes: the FP8 value 0, or the scale 2**-127."""
    if not rows and not columns:
        return t
    return pad(t.view(torch.uint8), (0, columns, 0, rows)).view(t.dtype)
