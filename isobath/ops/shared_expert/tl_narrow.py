"""shared_expert's kernels of few tokens, and the gate that those of many tokens share.

Owns both launches, not the choice between them and the wide ones: the hidden vector, quantised by
the last program of each group or left in bf16, and the second product of the latter.
"""

# mypy: ignore-errors

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor
from isobath.ops.tl_common import fp8_of, quantize_groups, sigmoid, ue8m0_decode
from isobath.ops.tl_gemm import BLOCK_K, SLICE, Tile, rows_of, slice_ends, store_tile, tile_of
from isobath.ops.tl_gemm_few import COUNTERS, add_slices, counters, lane_rows, quantize_last


@triton.jit
def gated(gate, up, limit):
    """float32 silu(min(gate, limit)) * clamp(up, -limit, limit); comparisons let NaN through."""
    g = tl.where(gate > limit, limit, gate)
    u = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
    return g * sigmoid(g) * u


@triton.jit
def gated_bf16(gate, up, limit):
    """gated() of float32 sums as the parts compute it: each rounded to bf16, so is the result."""
    gate = gate.to(tl.bfloat16).to(tl.float32)
    up = up.to(tl.bfloat16).to(tl.float32)
    return gated(gate, up, limit).to(tl.bfloat16)


@triton.jit
def narrow_hidden_tile(
    pid,
    x,
    x_scale,
    w,
    w_scale,
    hidden,
    codes,
    scale,
    counter,
    limit,
    T,
    HIDDEN: tl.constexpr,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    QUANTIZE: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """As wide_hidden_tile with ROWS / 2 gate rows and as many up rows a tile, weights on the left.
    hidden: bf16 [T, HIDDEN]. Without QUANTIZE codes, scale and counter are not touched. Tiles:
    token tiles x tiles of hidden values."""
    HALF: tl.constexpr = ROWS // 2
    BLOCKS: tl.constexpr = K // 128
    STEPS: tl.constexpr = BLOCKS // LANES
    IN_SLICE: tl.constexpr = SLICE // BLOCK_K
    token_tile, row_tile = tile_of(pid, tl.cdiv(T, TOKENS), HIDDEN // HALF)
    first_token = token_tile.to(tl.int64) * TOKENS
    tokens, live = lane_rows(first_token, T, TOKENS, LANES)
    lane = tl.arange(0, LANES * TOKENS) // TOKENS
    of_token = tokens * K + lane * SLICE
    first_row = row_tile.to(tl.int64) * HALF
    row = tl.arange(0, LANES * ROWS)
    up = row % ROWS // HALF
    rows = row % HALF + up * HIDDEN
    of_row = rows * K + row // ROWS * SLICE
    x += first_token * K
    x_scale += first_token * BLOCKS
    w += first_row * K
    w_scale += first_row // 128 * BLOCKS
    of_scale = up * (HIDDEN // 128 * BLOCKS) + row // ROWS * IN_SLICE
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros((LANES * ROWS, LANES * TOKENS), tl.float32)
    total = tl.zeros((ROWS, TOKENS), tl.float32)
    for step in range(0, STEPS):
        b = step
        if LANES > 1 and STEPS > IN_SLICE:
            b += step // IN_SLICE * (IN_SLICE * (LANES - 1))
        by_token = ue8m0_decode(tl.load(x_scale + tokens * BLOCKS + lane * IN_SLICE + b))
        by_row = ue8m0_decode(tl.load(w_scale + of_scale + b))
        left = tl.load(w + b * BLOCK_K + (of_row[:, None] + k[None, :]))
        at = x + b * BLOCK_K + (of_token[None, :] + k[:, None])
        right = tl.load(at, mask=live[None, :], other=0.0)
        acc += tl.dot(left, right) * (by_row[:, None] * by_token[None, :])
        if STEPS > IN_SLICE:  # known to the compiler
            ends = slice_ends(step, STEPS, IN_SLICE)
            if ends:
                total = add_slices(total, acc, LANES)
                acc = tl.zeros_like(acc)
    total = add_slices(total, acc, LANES)
    halves = tl.permute(tl.reshape(total, (2, HALF, TOKENS)), (1, 2, 0))
    gate, up_value = tl.split(halves)
    token = first_token + tl.arange(0, TOKENS)
    at = hidden + token[None, :] * HIDDEN + first_row + tl.arange(0, HALF)[:, None]
    tl.store(at, gated_bf16(gate, up_value, limit), mask=token[None, :] < T)
    if QUANTIZE:
        group = first_row // 128
        tile = token_tile * (HIDDEN // 128) + group
        quantize_last(
            hidden,
            codes,
            scale,
            counter,
            tile,
            first_token,
            T,
            group,
            HIDDEN,
            TOKENS,
            128 // HALF,
            QUANT_MAX,
            FP8,
        )


@triton.jit(do_not_specialize=["T"])
def narrow_hidden_kernel(
    x,
    x_scale,
    w,
    w_scale,
    hidden,
    codes,
    scale,
    counter,
    limit,
    T,
    HIDDEN: tl.constexpr,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    QUANTIZE: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """Grid: the tiles of narrow_hidden_tile()."""
    narrow_hidden_tile(
        tl.program_id(0), x, x_scale, w, w_scale, hidden, codes, scale, counter, limit, T, HIDDEN,
        K, TOKENS, ROWS, LANES, QUANTIZE, QUANT_MAX, FP8,
    )  # fmt: skip


@triton.jit
def narrow_down_tile(
    pid,
    hidden,
    w,
    w_scale,
    out,
    T,
    N,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    EVEN_T: tl.constexpr,
    EVEN_N: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """fp8_linear of bf16 `hidden` [T, K], quantised a block of K at a time as it is read, with w:
    FP8 [N, K]. out: bf16 [T, N]. Tiles: token tiles x weight tiles."""
    STEPS: tl.constexpr = K // BLOCK_K
    token_tile, row_tile = tile_of(pid, tl.cdiv(T, TOKENS), tl.cdiv(N, ROWS))
    first_token, tokens = rows_of(token_tile, T, TOKENS, EVEN_T)
    first_row, rows = rows_of(row_tile, N, ROWS, EVEN_N)
    hidden += first_token * K
    w += first_row * K
    w_scale += first_row // 128 * STEPS
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    total = acc
    for b in range(0, STEPS):
        block = tl.load(hidden + b * BLOCK_K + (tokens[:, None] * K + k[None, :]))
        code, byte = quantize_groups(block.to(tl.float32), QUANT_MAX, FP8)
        right = tl.trans(code).to(FP8, bitcast=True)
        factor = ue8m0_decode(byte) * ue8m0_decode(tl.load(w_scale + b))
        left = tl.load(w + b * BLOCK_K + (rows[:, None] * K + k[None, :]))
        acc += tl.dot(left, right) * factor[None, :]
        if STEPS > SLICE // BLOCK_K:  # known to the compiler
            ends = slice_ends(b, STEPS, SLICE // BLOCK_K)
            if ends:
                total += acc
                acc = tl.zeros_like(acc)
    store_tile(out, N, total + acc, first_token, T, first_row, N, TOKENS, ROWS, True)


@triton.jit(do_not_specialize=["T"])
def narrow_down_kernel(
    hidden,
    w,
    w_scale,
    out,
    T,
    N,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    EVEN_T: tl.constexpr,
    EVEN_N: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """Grid: the tiles of narrow_down_tile()."""
    narrow_down_tile(
        tl.program_id(0), hidden, w, w_scale, out, T, N, K, TOKENS, ROWS, EVEN_T, EVEN_N, QUANT_MAX,
        FP8,
    )  # fmt: skip


def launch_narrow(
    x: Fp8Tensor,
    w13: Fp8Tensor,
    limit: float,
    tile: Tile,
    options: dict[str, Any],
    *,
    quantize: bool,
) -> tuple[Fp8Tensor, torch.Tensor]:
    """The hidden vector [T, I] of few tokens, with a given tile: quantised, if asked for, and in
    bf16."""
    (tokens, width), hidden = x.data.shape, w13.data.shape[0] // 2
    assert hidden % 128 == 0 and width % 128 == 0, (hidden, width)
    tile, token_tiles = tile.narrowed(width), triton.cdiv(tokens, tile.tokens)
    assert not quantize or token_tiles * hidden // 128 <= COUNTERS, (tokens, tile)
    between = torch.empty(tokens, hidden, dtype=torch.bfloat16, device=x.data.device)
    codes = torch.empty(tokens, hidden, dtype=torch.uint8, device=x.data.device)
    scale = torch.empty(tokens, hidden // 128, dtype=torch.uint8, device=x.data.device)
    if tokens:
        narrow_hidden_kernel[(token_tiles * (hidden * 2 // tile.rows),)](
            x.data,
            x.scale,
            w13.data,
            w13.scale,
            between,
            codes,
            scale,
            counters(x.data.device, "shared_expert") if quantize else scale,
            limit,
            tokens,
            HIDDEN=hidden,
            K=width,
            TOKENS=tile.tokens,
            ROWS=tile.rows,
            LANES=tile.lanes,
            QUANTIZE=quantize,
            **fp8_of(x.dialect),
            **options,
        )
    codes = codes.view(x.dialect.dtype)
    return Fp8Tensor(codes, scale, x.dialect, ACTIVATION_BLOCK), between


def launch_down(
    between: torch.Tensor, w2: Fp8Tensor, tile: Tile, options: dict[str, Any]
) -> torch.Tensor:
    """The second product of few tokens, of the hidden vector in bf16."""
    (tokens, hidden), rows = between.shape, w2.data.shape[0]
    out = torch.empty(tokens, rows, dtype=torch.bfloat16, device=between.device)
    if tokens:
        narrow_down_kernel[(triton.cdiv(tokens, tile.tokens) * triton.cdiv(rows, tile.rows),)](
            between,
            w2.data,
            w2.scale,
            out,
            tokens,
            rows,
            K=hidden,
            TOKENS=tile.tokens,
            ROWS=tile.rows,
            EVEN_T=tokens % tile.tokens == 0,
            EVEN_N=rows % tile.rows == 0,
            **fp8_of(w2.dialect),
            **options,
        )
    return out
