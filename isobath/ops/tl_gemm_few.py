"""What the Triton GEMMs of few tokens share: slices of K side by side in one program.

Few tokens need many programs to reach the memory rate, more than there are tiles of 64 weight rows.
A tile may then hold fewer rows, several times: as `lanes`, one slice of K each, with the tokens'
same slices beside each other on the right. The MMA multiplies every lane with every slice; only
where a lane meets its own does the result count. Arithmetic is spare there and nothing has to be
added up between programs.

The sums, their order and so the bits are those of ops/tl_gemm.py. What needs a whole group of 128
outputs, its scale, is done by the last of the programs that hold a part of it.
"""

# mypy: ignore-errors

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import quantize_groups, ue8m0_decode
from isobath.ops.tl_gemm import BLOCK_K, SLICE, slice_ends

COUNTERS = 1 << 14


@cache
def counters(device: torch.device, op: str) -> torch.Tensor:
    """int32 zeros [COUNTERS] of a device for last_of(), which leaves them so. Every op has its own:
    an op's launches follow one another, those of two ops may run beside each other."""
    return torch.zeros(COUNTERS, dtype=torch.int32, device=device)


@triton.jit
def lane_rows(start, count, SIZE: tl.constexpr, LANES: tl.constexpr):
    """(int32 rows of a tile as rows_of(), once for every lane; whether each exists)."""
    rows = tl.arange(0, SIZE * LANES) % SIZE
    left = (count - start).to(tl.int32)
    return tl.minimum(rows, left - 1), rows < left


@triton.jit
def add_slices(total, acc, LANES: tl.constexpr):
    """total + the slices' sums in ascending order. acc: [LANES * rows, LANES * tokens]; a lane's
    sum is where its rows meet its tokens, the rest are products of different parts of K."""
    if LANES == 1:
        total += acc
    else:
        ROWS: tl.constexpr = acc.shape[0] // LANES
        TOKENS: tl.constexpr = acc.shape[1] // LANES
        lane = tl.arange(0, LANES)
        met = lane[:, None, None, None] == lane[None, None, :, None]
        parts = tl.where(met, tl.reshape(acc, (LANES, ROWS, LANES, TOKENS)), 0.0)
        own = tl.permute(tl.sum(parts, 2), (1, 2, 0))  # one of the terms is not zero: exact
        if LANES == 2:
            s0, s1 = tl.split(own)
            total = total + s0 + s1
        else:
            even, odd = tl.split(tl.reshape(own, (ROWS, TOKENS, 2, 2)))
            s0, s2 = tl.split(even)
            s1, s3 = tl.split(odd)
            total = total + s0 + s1 + s2 + s3
    return total


@triton.jit
def fp8_product_few(
    x, x_scale, tokens, live, w, w_scale, rows, K: tl.constexpr, LANES: tl.constexpr
):
    """fp8_product of few tokens, weights on the left -> float32 [rows, tokens].

    tokens, live: from lane_rows(). rows: offsets of the weight rows, once for every lane.
    """
    STEPS: tl.constexpr = K // BLOCK_K // LANES
    IN_SLICE: tl.constexpr = SLICE // BLOCK_K
    k = tl.arange(0, BLOCK_K)
    of_row = rows * K + tl.arange(0, rows.shape[0]) // (rows.shape[0] // LANES) * SLICE
    lane = tl.arange(0, tokens.shape[0]) // (tokens.shape[0] // LANES)
    of_token = tokens * K + lane * SLICE
    acc = tl.zeros((rows.shape[0], tokens.shape[0]), tl.float32)
    total = tl.zeros((rows.shape[0] // LANES, tokens.shape[0] // LANES), tl.float32)
    for step in range(0, STEPS):
        b = step
        if LANES > 1 and STEPS > IN_SLICE:
            b += step // IN_SLICE * (IN_SLICE * (LANES - 1))
        by_token = ue8m0_decode(tl.load(x_scale + tokens * (K // BLOCK_K) + lane * IN_SLICE + b))
        factor = by_token * ue8m0_decode(tl.load(w_scale + lane * IN_SLICE + b))
        left = tl.load(w + b * BLOCK_K + (of_row[:, None] + k[None, :]))
        at = x + b * BLOCK_K + (of_token[None, :] + k[:, None])
        right = tl.load(at, mask=live[None, :], other=0.0)
        acc += tl.dot(left, right) * factor[None, :]
        if STEPS > IN_SLICE:  # known to the compiler
            ends = slice_ends(step, STEPS, IN_SLICE)
            if ends:
                total = add_slices(total, acc, LANES)
                acc = tl.zeros_like(acc)
    return add_slices(total, acc, LANES)


@triton.jit
def widened_product(
    x,
    stride,
    tokens,
    live,
    w,
    w_scale,
    rows,
    K: tl.constexpr,
    DTYPE: tl.constexpr,
    LANES: tl.constexpr,
):
    """Unquantised rows times FP8 rows, both as DTYPE -> float32 [rows, tokens].

    Weights are the left operand, the one that an MMA takes from registers. Four significant bits
    times a power of two fit bf16, so truncating loses nothing and spares gfx942 the instructions of
    rounding; scaled before the MMA, they need no second set of sums. stride: of
    x's rows. The other arguments as fp8_product_few's.
    """
    STEPS: tl.constexpr = K // BLOCK_K // LANES
    IN_SLICE: tl.constexpr = SLICE // BLOCK_K
    k = tl.arange(0, BLOCK_K)
    of_slice = tl.arange(0, rows.shape[0]) // (rows.shape[0] // LANES)
    of_row = rows * K + of_slice * SLICE
    of_scale = of_slice * IN_SLICE
    lane = tl.arange(0, tokens.shape[0]) // (tokens.shape[0] // LANES)
    of_token = tokens * stride + lane * SLICE
    acc = tl.zeros((rows.shape[0], tokens.shape[0]), tl.float32)
    total = tl.zeros((rows.shape[0] // LANES, tokens.shape[0] // LANES), tl.float32)
    for step in range(0, STEPS):
        b = step
        if LANES > 1 and STEPS > IN_SLICE:
            b += step // IN_SLICE * (IN_SLICE * (LANES - 1))
        codes = tl.load(w + b * BLOCK_K + (of_row[:, None] + k[None, :]))
        at = x + b * BLOCK_K + (of_token[None, :] + k[:, None])
        right = tl.load(at, mask=live[None, :], other=0.0).to(DTYPE)
        left = codes.to(tl.float32) * ue8m0_decode(tl.load(w_scale + of_scale + b))[:, None]
        if right.dtype != tl.float32:
            left = tl.cast(left, DTYPE, fp_downcast_rounding="rtz")
        acc = tl.dot(left, right, acc, input_precision="ieee")
        if STEPS > IN_SLICE:  # known to the compiler
            ends = slice_ends(step, STEPS, IN_SLICE)
            if ends:
                total = add_slices(total, acc, LANES)
                acc = tl.zeros_like(acc)
    return add_slices(total, acc, LANES)


@triton.jit
def plain_product_few(
    x,
    stride,
    tokens,
    live,
    w,
    rows,
    K: tl.constexpr,
    DTYPE: tl.constexpr,
    STEP: tl.constexpr,
    LANES: tl.constexpr,
):
    """plain_product of few tokens, weights on the left -> float32 [rows, tokens]. Arguments as
    fp8_product_few's; K is a multiple of LANES slices."""
    STEPS: tl.constexpr = K // STEP // LANES
    IN_SLICE: tl.constexpr = SLICE // STEP
    k = tl.arange(0, STEP)
    of_row = rows * K + tl.arange(0, rows.shape[0]) // (rows.shape[0] // LANES) * SLICE
    lane = tl.arange(0, tokens.shape[0]) // (tokens.shape[0] // LANES)
    of_token = tokens * stride + lane * SLICE
    acc = tl.zeros((rows.shape[0], tokens.shape[0]), tl.float32)
    total = tl.zeros((rows.shape[0] // LANES, tokens.shape[0] // LANES), tl.float32)
    for step in range(0, STEPS):
        b = step
        if STEPS > IN_SLICE:
            b += step // IN_SLICE * (IN_SLICE * (LANES - 1))
        left = tl.load(w + b * STEP + (of_row[:, None] + k[None, :]))
        at = x + b * STEP + (of_token[None, :] + k[:, None])
        right = tl.load(at, mask=live[None, :], other=0.0)
        acc = tl.dot(left.to(DTYPE), right.to(DTYPE), acc, input_precision="ieee")
        if STEPS > IN_SLICE:  # known to the compiler
            ends = slice_ends(step, STEPS, IN_SLICE)
            if ends:
                total = add_slices(total, acc, LANES)
                acc = tl.zeros_like(acc)
    return add_slices(total, acc, LANES)


@triton.jit
def last_of(counter, PARTS: tl.constexpr):
    """Whether this program is the last of PARTS to get here; it then sees what all of them stored
    before, and finds the counter at zero again.

    For NVIDIA alone: on gfx942 a workgroup's barrier does not wait for its other waves' stores.
    """
    tl.debug_barrier()
    last = tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu") == PARTS - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def quantize_last(
    between,
    codes,
    scale,
    counters,
    tile,
    first_token,
    T,
    block,
    WIDTH,
    TOKENS: tl.constexpr,
    PARTS: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """The last of the PARTS programs that store a group of 128 columns quantises it.

    between: bf16 [T, WIDTH], codes: uint8 [T, WIDTH], scale: UE8M0 bytes [T, WIDTH / 128]; block:
    the group's index; tile: its counter's.
    """
    if last_of(counters + tile, PARTS):
        token = first_token + tl.arange(0, TOKENS)
        at = token[:, None] * WIDTH + block * 128 + tl.arange(0, 128)[None, :]
        live = token[:, None] < T
        rounded = tl.load(between + at, mask=live, other=0.0, cache_modifier=".cg")
        code, byte = quantize_groups(rounded.to(tl.float32), QUANT_MAX, FP8)
        tl.store(codes + at, code, mask=live)
        tl.store(scale + token * (WIDTH // 128) + block, byte.to(tl.uint8), mask=token < T)
