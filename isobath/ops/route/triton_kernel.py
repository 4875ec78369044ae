"""route on a GPU: one launch for the gate's product in slices of K, one to choose.

A slice is SLICE columns whatever T is, and slices are added in order, so a token's logits do not
depend on the batch. Scores are compared as integers that order like floats, with the expert's
number below them, so that a tie goes to the lower expert and a NaN counts as the largest.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import pow2, target_of

SLICE = 512
EXPERTS_A_TILE = 64
STAGES = {"cuda": 3, "hip": 2, "cpu": 1}
STEP, PLAIN_STEP = 128, 32
"""K a step, in bf16 and in float32."""
TOKENS_A_TILE = ((128, 16), (1 << 62, 64))
"""(tokens of the batch, at most; tokens a tile)."""


@triton.jit
def gate_tile(
    x,
    gate,
    partial,
    tokens,
    token_tile,
    expert_tile,
    slice,
    E: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICE: tl.constexpr,
    BE: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    PLAIN: tl.constexpr,
):
    """partial[slice, t, e] = the part of x[t] . gate[e] in this slice of K: float32."""
    token = token_tile.to(tl.int64) * BT + tl.arange(0, BT)
    expert = expert_tile * BE + tl.arange(0, BE)
    first = slice * SLICE
    total = tl.zeros([BE, BT], tl.float32)
    for step in tl.range(0, SLICE // BK, num_stages=STAGES):
        k = first + step * BK + tl.arange(0, BK)
        inside = k < WIDTH
        rows = tl.load(
            gate + expert[:, None] * WIDTH + k[None, :],
            mask=(expert < E)[:, None] & inside[None, :],
            other=0.0,
        )
        columns = tl.load(
            x + token[None, :] * WIDTH + k[:, None],
            mask=(token < tokens)[None, :] & inside[:, None],
            other=0.0,
        )
        if PLAIN:
            rows, columns = rows.to(tl.float32), columns.to(tl.float32)
        total = tl.dot(rows, columns, total, input_precision="ieee")
    out = partial + (slice.to(tl.int64) * tokens + token[None, :]) * E + expert[:, None]
    tl.store(out, total, mask=(expert < E)[:, None] & (token < tokens)[None, :])


@triton.jit
def gate_slices(
    x,
    gate,
    partial,
    tokens,
    E: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICE: tl.constexpr,
    BE: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    PLAIN: tl.constexpr,
):
    """Grid: token tiles, expert tiles, slices of gate_tile()."""
    gate_tile(
        x, gate, partial, tokens, tl.program_id(0), tl.program_id(1), tl.program_id(2), E, WIDTH,
        SLICE, BE, BT, BK, STAGES, PLAIN,
    )  # fmt: skip


@triton.jit
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|).

    Below 2^-6 four terms of log1p's series are exact to 2^-26; above, a logarithm's absolute error
    of 2^-22 is at most 2^-16 of the result.
    """
    u = tl.exp(-tl.abs(x))
    series = u * (1.0 - u * (0.5 - u * (0.33333334 - u * 0.25)))
    tail = tl.where(u < 0.015625, series, tl.log(1.0 + u))
    return tl.where(x != x, x, tl.where(x > 0, x, 0.0) + tail)


@triton.jit
def descending(score, lane, SPAN: tl.constexpr):
    """float32 scores -> int64 keys: larger scores first, then lower lanes; NaN before all."""
    bits = (score + 0.0).to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    ordered = tl.where(score != score, 0x7FFFFFFF, ordered)
    return (ordered.to(tl.int64) << 32) | (SPAN - 1 - lane).to(tl.int64)


@triton.jit
def chosen_by(
    token,
    partial,
    token_ids,
    bias,
    table,
    tokens,
    E: tl.constexpr,
    SPAN: tl.constexpr,
    SLICES: tl.constexpr,
    TOP_K: tl.constexpr,
    SLOTS: tl.constexpr,
    HASHED: tl.constexpr,
):
    """One token: scores, its TOP_K experts by s + bias or by the table, weights s / sum. Returns
    (experts int64 [SLOTS], -1 in a padding lane; weights float32 [SLOTS], 0 there)."""
    lane = tl.arange(0, SPAN)
    slot = tl.arange(0, SLOTS)
    inside = lane < E
    logits = tl.zeros([SPAN], tl.float32)
    for part in tl.static_range(SLICES):
        logits += tl.load(partial + (part * tokens + token) * E + lane, mask=inside, other=0.0)
    score = tl.sqrt_rn(softplus(logits))
    token_id = tl.load(token_ids + token)
    chosen = tl.full([SLOTS], -1, tl.int64)
    value = tl.zeros([SLOTS], tl.float32)
    total = 0.0
    if HASHED:
        left = tl.zeros([SPAN], tl.int64)
    else:
        key = descending(score + tl.load(bias + lane, mask=inside, other=0.0), lane, SPAN)
        left = tl.where(inside, key, -0x7FFFFFFFFFFFFFFF)
    for i in tl.static_range(TOP_K):
        if HASHED:
            expert = tl.load(table + tl.maximum(token_id, 0) * TOP_K + i)
        else:
            best = tl.max(left, 0)
            expert = SPAN - 1 - (best & 0xFFFFFFFF)
            left = tl.where(left == best, -0x7FFFFFFFFFFFFFFF, left)
        one = tl.sum(tl.where(lane == expert, score, 0.0), 0)
        chosen = tl.where(slot == i, expert, chosen)
        value = tl.where(slot == i, one, value)
        total += one
    padding = token_id < 0
    return tl.where(padding, -1, chosen), tl.where(padding, 0.0, value / total)


@triton.jit
def choose(
    partial,
    token_ids,
    bias,
    table,
    experts,
    weights,
    tokens,
    scale,
    E: tl.constexpr,
    SPAN: tl.constexpr,
    SLICES: tl.constexpr,
    TOP_K: tl.constexpr,
    SLOTS: tl.constexpr,
    HASHED: tl.constexpr,
):
    """Grid: tokens, each of which chosen_by() chooses for."""
    token = tl.program_id(0).to(tl.int64)
    chosen, value = chosen_by(
        token, partial, token_ids, bias, table, tokens, E, SPAN, SLICES, TOP_K, SLOTS, HASHED
    )
    slot = tl.arange(0, SLOTS)
    tl.store(experts + token * TOP_K + slot, chosen, mask=slot < TOP_K)
    tl.store(weights + token * TOP_K + slot, value * scale, mask=slot < TOP_K)


def prepare(gate: torch.Tensor) -> torch.Tensor:
    """[E, D], bf16 or float32, as it is."""
    return gate.contiguous()


def tokens_a_tile(tokens: int) -> int:
    """Of a bf16 gate_tile(), in a batch of `tokens`."""
    return next(tile for limit, tile in TOKENS_A_TILE if tokens <= limit)


def route(
    x: torch.Tensor,
    gate: torch.Tensor,
    token_ids: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
    k: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    assert (bias is None) != (table is None), "exactly one of bias and table"
    (tokens, width), num_experts = x.shape, len(gate)
    experts = token_ids.new_empty(tokens, k)
    weights = x.new_empty(tokens, k, dtype=torch.float32)
    if not tokens:
        return experts, weights
    plain = x.dtype == torch.float32 or gate.dtype == torch.float32
    slices = triton.cdiv(width, SLICE)
    partial = weights.new_empty(slices, tokens, num_experts)
    tile = 16 if plain else tokens_a_tile(tokens)
    gate_slices[(triton.cdiv(tokens, tile), triton.cdiv(num_experts, EXPERTS_A_TILE), slices)](
        x,
        gate,
        partial,
        tokens,
        E=num_experts,
        WIDTH=width,
        SLICE=SLICE,
        BE=EXPERTS_A_TILE,
        BT=tile,
        BK=PLAIN_STEP if plain else STEP,
        STAGES=STAGES[target_of(x).kind],
        PLAIN=plain,
        num_warps=4,
    )
    unused = weights
    choose[(tokens,)](
        partial,
        token_ids,
        unused if bias is None else bias,
        unused if table is None else table,
        experts,
        weights,
        tokens,
        scale,
        E=num_experts,
        SPAN=pow2(num_experts),
        SLICES=slices,
        TOP_K=k,
        SLOTS=pow2(k),
        HASHED=bias is None,
        num_warps=1,
    )
    return experts, weights
