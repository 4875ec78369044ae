"""shared_expert in Triton: two launches, the hidden vector between them.

With many tokens the first launch multiplies a tile of tokens with 128 gate rows and the 128 up rows
beside them, and quantises that group of the hidden vector where it is; the second is fp8_linear.
With few, so wide a tile would leave most compute units idle: programs then hold fewer rows, the
hidden vector is stored in bf16, and either the last program of a group quantises it or the second
launch as it reads (tl_narrow.py). All ways round at the same places and sum in the same order, so
they give the same bits.

Plain operands (exact numerics) take three: linear, the gate, linear.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from isobath.errors import DialectMismatch
from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor
from isobath.ops.fp8_linear import triton_kernel as fp8
from isobath.ops.linear.triton_kernel import linear
from isobath.ops.shared_expert.tl_narrow import gated, gated_bf16, launch_down, launch_narrow
from isobath.ops.tl_common import fp8_of, quantize_groups, target_of
from isobath.ops.tl_gemm import Tile, Tiles, choose, fp8_product_pair, rows_of, tile_of

FEW_TOKENS = {"cuda": 64, "hip": 32, "cpu": 4}
"""Up to this many tokens take the narrow tiles. Predicted, not measured."""

LAST_QUANTIZES = {"cuda": True, "hip": False, "cpu": True}
"""Whether the last program of a group quantises it, or the second launch as it reads."""

TILES: Tiles = {
    "cuda": (
        (16, Tile(16, 16, 4, 6, swap=True, lanes=4)),
        (64, Tile(32, 32, 4, 5, swap=True, lanes=2)),
        (0, Tile(64, 128, 8, 3, pair=True)),
    ),
    "hip": (
        (16, Tile(16, 32, 4, 2, swap=True)),
        (32, Tile(32, 32, 4, 2, swap=True)),
        (0, Tile(64, 128, 8, 2, pair=True)),
    ),
    "cpu": ((4, Tile(16, 16, 4, 1, swap=True, lanes=2)), (0, Tile(32, 128, 4, 1, pair=True))),
}
"""Of the first launch; of the second up to FEW_TOKENS. Predicted, not measured."""

WIDTH = 512
"""Hidden values a program of the plain gate."""


@triton.jit
def wide_hidden_tile(
    pid,
    x,
    x_scale,
    w,
    w_scale,
    codes,
    scale,
    limit,
    T,
    HIDDEN: tl.constexpr,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    EVEN_T: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """Tile `pid` of token tiles x groups of 128 hidden values. x: FP8 [T, K], w: FP8 [2 * HIDDEN,
    K]; codes: uint8 [T, HIDDEN], scale: UE8M0 bytes [T, HIDDEN / 128]."""
    GROUPS: tl.constexpr = HIDDEN // 128
    BLOCKS: tl.constexpr = K // 128
    token_tile, group = tile_of(pid, tl.cdiv(T, TOKENS), GROUPS)
    first_token, tokens = rows_of(token_tile, T, TOKENS, EVEN_T)
    first_row, rows = rows_of(group, HIDDEN, 128, True)
    gate_at, gate_scale = w + first_row * K, w_scale + group * BLOCKS
    up_at, up_scale = gate_at + HIDDEN * K, gate_scale + GROUPS * BLOCKS
    x += first_token * K
    x_scale += first_token * BLOCKS
    gate, up = fp8_product_pair(x, x_scale, tokens, gate_at, gate_scale, up_at, up_scale, rows, K)
    hidden = gated_bf16(gate, up, limit).to(tl.float32)
    code, byte = quantize_groups(hidden, QUANT_MAX, FP8)
    token = first_token + tl.arange(0, TOKENS)
    at = codes + token[:, None] * HIDDEN + first_row + tl.arange(0, 128)[None, :]
    tl.store(at, code, mask=token[:, None] < T)
    tl.store(scale + token * GROUPS + group, byte.to(tl.uint8), mask=token < T)


@triton.jit(do_not_specialize=["T"])
def wide_hidden_kernel(
    x,
    x_scale,
    w,
    w_scale,
    codes,
    scale,
    limit,
    T,
    HIDDEN: tl.constexpr,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    EVEN_T: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """Grid: the tiles of wide_hidden_tile()."""
    wide_hidden_tile(
        tl.program_id(0), x, x_scale, w, w_scale, codes, scale, limit, T, HIDDEN, K, TOKENS, EVEN_T,
        QUANT_MAX, FP8,
    )  # fmt: skip


@triton.jit
def plain_hidden_kernel(both, hidden, limit, HIDDEN, WIDTH: tl.constexpr):
    """both: float32 [T, 2 * HIDDEN], gate then up; hidden: float32 [T, HIDDEN]. Grid: T x tiles."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    gate = tl.load(both + token * 2 * HIDDEN + at, mask=at < HIDDEN, other=0.0)
    up = tl.load(both + token * 2 * HIDDEN + HIDDEN + at, mask=at < HIDDEN, other=0.0)
    tl.store(hidden + token * HIDDEN + at, gated(gate, up, limit), mask=at < HIDDEN)


def shared_expert(
    x: Fp8Tensor | torch.Tensor,
    w13: Fp8Tensor | torch.Tensor,
    w2: Fp8Tensor | torch.Tensor,
    *,
    limit: float,
) -> torch.Tensor:
    if not isinstance(x, Fp8Tensor):
        both = linear(x, w13)
        hidden = both.new_empty(len(x), w2.shape[1])
        if len(x):
            grid = (len(x), triton.cdiv(hidden.shape[1], WIDTH))
            plain_hidden_kernel[grid](both, hidden, limit, hidden.shape[1], WIDTH=WIDTH)
        return linear(hidden, w2)
    if not x.dialect == w13.dialect == w2.dialect:
        raise DialectMismatch(
            f"shared_expert(w13=, w2=): expected {x.dialect} like the activations",
            found=f"{w13.dialect} and {w2.dialect}",
            effect="a product would be off by a factor of two",
            do="transcode the weights at load",
        )
    tile, options = choose(TILES, x.data, len(x.data))
    kind = target_of(x.data).kind
    if len(x.data) > FEW_TOKENS[kind]:
        return fp8.fp8_linear(launch_wide(x, w13, limit, tile, options), w2)
    if LAST_QUANTIZES[kind]:
        hidden, _ = launch_narrow(x, w13, limit, tile, options, quantize=True)
        return fp8.fp8_linear(hidden, w2)
    _, between = launch_narrow(x, w13, limit, tile, options, quantize=False)
    return launch_down(between, w2, tile, options)


def launch_wide(
    x: Fp8Tensor, w13: Fp8Tensor, limit: float, tile: Tile, options: dict[str, Any]
) -> Fp8Tensor:
    """The quantised hidden vector [T, I] of many tokens, with a given tile."""
    (tokens, width), hidden = x.data.shape, w13.data.shape[0] // 2
    assert hidden % 128 == 0 and width % 128 == 0, (hidden, width)
    codes = torch.empty(tokens, hidden, dtype=torch.uint8, device=x.data.device)
    scale = torch.empty(tokens, hidden // 128, dtype=torch.uint8, device=x.data.device)
    if tokens:
        wide_hidden_kernel[(triton.cdiv(tokens, tile.tokens) * (hidden // 128),)](
            x.data,
            x.scale,
            w13.data,
            w13.scale,
            codes,
            scale,
            limit,
            tokens,
            HIDDEN=hidden,
            K=width,
            TOKENS=tile.tokens,
            EVEN_T=tokens % tile.tokens == 0,
            **fp8_of(x.dialect),
            **options,
        )
    return Fp8Tensor(codes.view(x.dialect.dtype), scale, x.dialect, ACTIVATION_BLOCK)
