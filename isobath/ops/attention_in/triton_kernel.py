"""attention_in in Triton: one launch, some of its programs fp8_linear's and the others linear's.

Tiles of either side move as many bytes a step of K and hold as many sums, so one choice of warps
and stages, and nearly the same registers, serve both. What a program computes, and so its bits, is
that of the op it belongs to.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.fp8_linear.triton_kernel import expect_one_dialect, fp8_tile
from isobath.ops.linear.triton_kernel import STEP, plain_tile
from isobath.ops.tl_gemm import Tile, Tiles, choose

TILES: Tiles = {
    "cuda": (
        (16, Tile(16, 16, 4, 6, swap=True, lanes=4)),
        (64, Tile(32, 32, 4, 6, swap=True, lanes=2)),
        (0, Tile(64, 128, 4, 4)),
    ),
    "hip": (
        (16, Tile(16, 16, 4, 2, swap=True)),
        (32, Tile(32, 32, 4, 2, swap=True)),
        (64, Tile(64, 64, 4, 2, swap=True)),
        (0, Tile(128, 128, 8, 2)),
    ),
    "cpu": ((4, Tile(16, 16, 4, 1, swap=True, lanes=2)), (0, Tile(32, 64, 4, 1))),
}
"""Those of fp8_linear and linear where they agree. Predicted, not measured."""


@triton.jit(do_not_specialize=["T"])
def attention_in_kernel(
    x,
    x_scale,
    w,
    w_scale,
    out,
    plain,
    plain_w,
    plain_out,
    T,
    N,
    M,
    K: tl.constexpr,
    STEP: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    SWAP: tl.constexpr,
    LANES: tl.constexpr,
    EVEN_T: tl.constexpr,
    EVEN_N: tl.constexpr,
    EVEN_M: tl.constexpr,
):
    """Programs: the tiles of out, bf16 [T, N], then those of plain_out, float32 [T, M]."""
    program = tl.program_id(0)
    first = tl.cdiv(T, TOKENS) * tl.cdiv(N, ROWS)
    if program < first:
        fp8_tile(
            program, x, x_scale, w, w_scale, out, T, N, K, TOKENS, ROWS, SWAP, False, LANES, EVEN_T,
            EVEN_N,
        )  # fmt: skip
    else:
        plain_tile(
            program - first, plain, plain_w, plain_out, T, M, K, tl.bfloat16, STEP, TOKENS, ROWS,
            SWAP, LANES, EVEN_T, EVEN_M,
        )  # fmt: skip


def attention_in(
    x: Fp8Tensor, plain: torch.Tensor, weight: Fp8Tensor, plain_weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    expect_one_dialect(x, weight, "attention_in")
    (tokens, width), rows, more = x.data.shape, len(weight.data), len(plain_weight)
    tile, options = choose(TILES, x.data, tokens)
    tile = tile.narrowed(width)
    assert plain.dtype == plain_weight.dtype == torch.bfloat16, (plain.dtype, plain_weight.dtype)
    assert all(t.is_contiguous() for t in (x.data, x.scale, plain, plain_weight)), "there are gaps"
    assert width % 128 == 0 and 128 % tile.rows == 0, (width, tile)
    out = torch.empty(tokens, rows, dtype=torch.bfloat16, device=plain.device)
    taken = torch.empty(tokens, more, dtype=torch.float32, device=plain.device)
    if tokens:
        row_tiles = triton.cdiv(rows, tile.rows) + triton.cdiv(more, tile.rows)
        attention_in_kernel[(triton.cdiv(tokens, tile.tokens) * row_tiles,)](
            x.data,
            x.scale,
            weight.data,
            weight.scale,
            out,
            plain,
            plain_weight,
            taken,
            tokens,
            rows,
            more,
            K=width,
            STEP=STEP[torch.bfloat16],
            TOKENS=tile.tokens,
            ROWS=tile.rows,
            SWAP=tile.swap,
            LANES=tile.lanes,
            EVEN_T=not tile.swap and tokens % tile.tokens == 0,
            EVEN_N=rows % tile.rows == 0,
            EVEN_M=more % tile.rows == 0,
            **options,
        )
    return out, taken
