"""index_query on a GPU: one program a token and block of heads, one launch."""

import torch
import triton
import triton.language as tl

from isobath.cache.layout import RowLayout
from isobath.numerics.dialect import Dialect
from isobath.ops.tl_common import fp8_of, pow2, quantize_groups, turn, ue8m0_decode

HEADS = 64
"""Most heads of one program."""


@triton.jit
def index_query_kernel(
    q, cos_sin, weights, values, out_weights, num_heads, weights_stride, factor,
    WIDTH: tl.constexpr, ROPE: tl.constexpr, BH: tl.constexpr, PLAIN: tl.constexpr,
    QUANT_MAX: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    """Grid (T, blocks of BH heads). values: uint8 [T, Hi, d], or q's dtype if PLAIN."""
    t = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * BH + tl.arange(0, BH)
    ok = heads < num_heads
    line = t * num_heads * WIDTH + heads[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    x = tl.load(q + line, mask=ok[:, None], other=0.0).to(tl.float32)
    # Pairs before the rotated ones turn by nothing.
    angle = tl.arange(0, WIDTH // 2) - (WIDTH - ROPE) // 2
    cos = tl.load(cos_sin + t * ROPE + angle, mask=angle >= 0, other=1.0)
    sin = tl.load(cos_sin + t * ROPE + ROPE // 2 + angle, mask=angle >= 0, other=0.0)
    a, b = tl.split(tl.reshape(x, [BH, WIDTH // 2, 2]))
    a, b = turn(a, b, cos[None, :], sin[None, :])
    x = tl.reshape(tl.join(a, b), [BH, WIDTH]).to(q.dtype.element_ty)
    weight = tl.load(weights + t * weights_stride + heads, mask=ok, other=0.0) * factor
    if PLAIN:
        tl.store(values + line, x, mask=ok[:, None])
    else:
        code, byte = quantize_groups(x.to(tl.float32), QUANT_MAX, FP8)
        tl.store(values + line, code, mask=ok[:, None])
        weight = weight * ue8m0_decode(byte)
    tl.store(out_weights + t * num_heads + heads, weight, mask=ok)


def index_query(
    q: torch.Tensor,
    cos_sin: torch.Tensor,
    weights: torch.Tensor,
    *,
    layout: RowLayout,
    dialect: Dialect,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, width = q.shape
    assert q.is_contiguous() and weights.stride(-1) == 1, (q.stride(), weights.stride())
    values = torch.empty_like(q, dtype=q.dtype if layout.plain else dialect.dtype)
    out_weights = torch.empty(tokens, heads, dtype=torch.float32, device=q.device)
    if tokens:
        rows = min(HEADS, pow2(heads))
        index_query_kernel[(tokens, -(-heads // rows))](
            q,
            cos_sin,
            weights,
            values if layout.plain else values.view(torch.uint8),
            out_weights,
            heads,
            weights.stride(0),
            width**-0.5 * heads**-0.5,
            WIDTH=width,
            ROPE=cos_sin.shape[1],
            BH=rows,
            PLAIN=layout.plain,
            **fp8_of(dialect),
            num_warps=4,
        )
    return values, out_weights
