"""What the Triton GEMMs share: tiles, their order on the device, and the loops over K.

Every kernel sums K in the same steps whatever the tile: slices of 1,024 values from zero, added to
each other in ascending order; inside a slice FP8 operands go in blocks of 128 with one multiply-add
by the (power of two) scales a block, others in one chain of MMA instructions. So a row's bits
depend neither on the number of rows nor on the tile that was chosen for it. Two choices keep that
true on hardware: on NVIDIA the left operand always has 64 rows or more and four warps or a multiple
(one kind of instruction, wgmma), on AMD all MMAs are 16 x 16. With few tokens the weights are
therefore the left operand ("swap"): 16 tokens then fill an instruction that would waste 48 of its
64 rows on them.

Both operands are read along K, the right one transposed in its addresses: loaded any other way it
would cross LDS banks on gfx942. Rows past the end read the last row again and are not stored, which
costs nothing and needs no mask in the loop.
"""

# mypy: ignore-errors

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import target_of, ue8m0_decode

BLOCK_K = tl.constexpr(128)
"""Values of K that share a scale, and the K extent of every FP8 tile."""

SLICE = tl.constexpr(1024)
"""Values of K in a slice: part of the numerics, so the same in every tile and on every target."""


@dataclass(frozen=True, slots=True)
class Tile:
    """tokens, rows: of activations and of weights in a program's tile. warps, stages: as Triton
    calls them. swap: weights are the left operand. pair: two tiles of weights share the tokens'.
    lanes: slices of K that a swapped tile sums side by side, 1, 2 or 4."""

    tokens: int
    rows: int
    warps: int
    stages: int
    swap: bool = False
    pair: bool = False
    lanes: int = 1

    def narrowed(self, width: int) -> Tile:
        """This tile with as many of its lanes as a K of `width` has slices for, and more rows a
        lane: as many in all."""
        lanes = self.lanes
        while lanes > 1 and width % (SLICE.value * lanes):
            lanes //= 2
        return replace(self, rows=self.rows * self.lanes // lanes, lanes=lanes)

    def options(self, kind: str) -> dict[str, Any]:
        """Launch options on a target of this kind ("cuda", "hip" or "cpu")."""
        options: dict[str, Any] = {"num_warps": self.warps, "num_stages": self.stages}
        return options | ({"matrix_instr_nonkdim": 16} if kind == "hip" else {})


Tiles = Mapping[str, tuple[tuple[int, Tile], ...]]
"""Target kind -> (most tokens, tile) in ascending order; the last one serves any number."""


def choose(tiles: Tiles, x: torch.Tensor, tokens: int) -> tuple[Tile, dict[str, Any]]:
    """The tile for this many tokens where `x` lies, and its launch options."""
    kind = target_of(x).kind
    rows = tiles[kind]
    tile = next((tile for most, tile in rows if tokens <= most), rows[-1][1])
    return tile, tile.options(kind)


@triton.jit
def tile_of(pid, token_tiles, row_tiles, GROUP: tl.constexpr = 8):
    """Program id -> (token tile, weight tile): GROUP token tiles visit a weight tile one after the
    other, so that it is fetched from memory once."""
    span = GROUP * row_tiles
    first = pid // span * GROUP
    size = tl.minimum(token_tiles - first, GROUP)
    inside = pid % span
    return first + inside % size, inside // size


@triton.jit
def rows_of(tile, count, SIZE: tl.constexpr, EVEN: tl.constexpr):
    """(int64 first row of a tile, int32 rows of it relative to the first, none past the last).

    EVEN: SIZE divides count; offsets are then constants apart, which saves registers.
    """
    start = tile.to(tl.int64) * SIZE
    rows = tl.arange(0, SIZE)
    if not EVEN:
        rows = tl.minimum(rows, (count - 1 - start).to(tl.int32))
    return start, rows


@triton.jit
def slice_ends(b, STEPS: tl.constexpr, SLICE_STEPS: tl.constexpr):
    """Whether step b of a loop of STEPS is the last of its slice, the last of all excepted."""
    done = b + 1
    return (done // SLICE_STEPS * SLICE_STEPS == done) & (done != STEPS)


@triton.jit
def fp8_product(x, x_scale, tokens, w, w_scale, rows, K: tl.constexpr):
    """FP8 rows times FP8 rows over all of K -> float32 [tokens, rows].

    x, x_scale, w: at the tile's first row; tokens, rows: int32 offsets from it. w_scale: at the
    scales of the one block of 128 weight rows that holds the tile.
    """
    STEPS: tl.constexpr = K // BLOCK_K
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros((tokens.shape[0], rows.shape[0]), tl.float32)
    total = acc
    for b in range(0, STEPS):
        by_token = ue8m0_decode(tl.load(x_scale + tokens * STEPS + b))
        factor = by_token * ue8m0_decode(tl.load(w_scale + b))
        left = tl.load(x + b * BLOCK_K + (tokens[:, None] * K + k[None, :]))
        right = tl.load(w + b * BLOCK_K + (rows[None, :] * K + k[:, None]))
        acc += tl.dot(left, right) * factor[:, None]
        if STEPS > SLICE // BLOCK_K:  # known to the compiler
            ends = slice_ends(b, STEPS, SLICE // BLOCK_K)
            if ends:
                total += acc
                acc = tl.zeros_like(acc)
    return total + acc


@triton.jit
def fp8_product_pair(x, x_scale, tokens, w0, w0_scale, w1, w1_scale, rows, K: tl.constexpr):
    """fp8_product of the same tokens with two weight tiles -> two float32 tiles.

    Each token tile is fetched once for both, at the registers of one MMA result and four sums.
    """
    STEPS: tl.constexpr = K // BLOCK_K
    k = tl.arange(0, BLOCK_K)
    acc0 = tl.zeros((tokens.shape[0], rows.shape[0]), tl.float32)
    acc1 = tl.zeros((tokens.shape[0], rows.shape[0]), tl.float32)
    total0 = acc0
    total1 = acc1
    for b in range(0, STEPS):
        by_token = ue8m0_decode(tl.load(x_scale + tokens * STEPS + b))
        factor0 = by_token * ue8m0_decode(tl.load(w0_scale + b))
        factor1 = by_token * ue8m0_decode(tl.load(w1_scale + b))
        left = tl.load(x + b * BLOCK_K + (tokens[:, None] * K + k[None, :]))
        right0 = tl.load(w0 + b * BLOCK_K + (rows[None, :] * K + k[:, None]))
        right1 = tl.load(w1 + b * BLOCK_K + (rows[None, :] * K + k[:, None]))
        acc0 += tl.dot(left, right0) * factor0[:, None]
        acc1 += tl.dot(left, right1) * factor1[:, None]
        if STEPS > SLICE // BLOCK_K:  # known to the compiler
            ends = slice_ends(b, STEPS, SLICE // BLOCK_K)
            if ends:
                total0 += acc0
                total1 += acc1
                acc0 = tl.zeros_like(acc0)
                acc1 = tl.zeros_like(acc1)
    return total0 + acc0, total1 + acc1


@triton.jit
def plain_product(
    x,
    stride,
    tokens,
    w,
    rows,
    K: tl.constexpr,
    DTYPE: tl.constexpr,
    SWAP: tl.constexpr,
    STEP: tl.constexpr,
):
    """Unquantised rows times unquantised rows, both converted to DTYPE (bf16, or fp32 without
    TF32) -> float32 [tokens, rows], or [rows, tokens] swapped. STEP: K extent of a tile."""
    STEPS: tl.constexpr = (K + STEP - 1) // STEP
    k = tl.arange(0, STEP)
    if SWAP:
        acc = tl.zeros((rows.shape[0], tokens.shape[0]), tl.float32)
    else:
        acc = tl.zeros((tokens.shape[0], rows.shape[0]), tl.float32)
    total = acc
    for b in range(0, STEPS):
        start = b * STEP
        inside = k < K - start
        if SWAP:
            left_at = w + start + (rows[:, None] * K + k[None, :])
            right_at = x + start + (tokens[None, :] * stride + k[:, None])
        else:
            left_at = x + start + (tokens[:, None] * stride + k[None, :])
            right_at = w + start + (rows[None, :] * K + k[:, None])
        if K % STEP == 0:
            left = tl.load(left_at)
            right = tl.load(right_at)
        else:
            left = tl.load(left_at, mask=inside[None, :], other=0.0)
            right = tl.load(right_at, mask=inside[:, None], other=0.0)
        acc = tl.dot(left.to(DTYPE), right.to(DTYPE), acc, input_precision="ieee")
        if STEPS > SLICE // STEP:  # known to the compiler
            ends = slice_ends(b, STEPS, SLICE // STEP)
            if ends:
                total += acc
                acc = tl.zeros_like(acc)
    return total + acc


@triton.jit
def store_tile(
    out,
    stride,
    acc,
    first_token,
    num_tokens,
    first_row,
    num_rows,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    SWAP: tl.constexpr,
):
    """Store the part of a float32 tile that exists, rounded to out's dtype.

    out: at the output's first token and the weight group's first row; stride: of its rows.
    """
    token = first_token + tl.arange(0, TOKENS)
    row = first_row + tl.arange(0, ROWS)
    if SWAP:
        at = out + token[None, :] * stride + row[:, None]
        inside = (token[None, :] < num_tokens) & (row[:, None] < num_rows)
    else:
        at = out + token[:, None] * stride + row[None, :]
        inside = (token[:, None] < num_tokens) & (row[None, :] < num_rows)
    tl.store(at, acc.to(out.dtype.element_ty), mask=inside)
