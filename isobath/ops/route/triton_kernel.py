"""route on a GPU: the gate's product in slices of K, then the choice. In steps of decode's size one
launch, which also sorts the pairs by expert; otherwise one to multiply and one to choose.

A slice is SLICE columns whatever T is, and slices are added in order, so a token's logits do not
depend on the batch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from isobath.ops.experts.triton_kernel import PLAIN_HEIGHT, plan
from isobath.ops.route import Pairs, Routes
from isobath.ops.route.tl_choose import choose_block
from isobath.ops.route.tl_sort import sort_pairs
from isobath.ops.tl_common import pow2, target_of
from isobath.ops.tl_gemm_few import counters, last_of

SLICE = 512
EXPERTS_A_TILE = 64
TOKENS_A_TILE = ((128, 16), (1 << 62, 64))
"""(tokens of the batch, at most; tokens a tile)."""

LAST_CHOOSES = {"cuda": True, "hip": False, "cpu": True}
"""Whether the last program of a token tile chooses, and the last of all sorts: see last_of()."""
MOST_SORTED = 1024
"""Of more tokens each is a program's of its own, and the experts' launch sorts."""
MARKED = 8
"""Tokens whose choice is marked in one byte, and that are looked at together. Predicted."""


@triton.jit
def gate_slice(
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
    PLAIN: tl.constexpr,
):
    """partial[slice, t, e] = the part of x[t] . gate[e] in this slice of K: float32."""
    token = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    expert = tl.program_id(1) * BE + tl.arange(0, BE)
    first = tl.program_id(2) * SLICE
    total = tl.zeros([BE, BT], tl.float32)
    for step in range(0, SLICE // BK):
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
    out = partial + (tl.program_id(2) * tokens + token[None, :]) * E + expert[:, None]
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
    PLAIN: tl.constexpr,
):
    """Grid: token tiles, expert tiles, slices."""
    gate_slice(x, gate, partial, tokens, E, WIDTH, SLICE, BE, BT, BK, PLAIN)


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
    """Grid: tokens."""
    choose_block(
        tl.program_id(0), partial, token_ids, bias, table, experts, weights, weights, tokens, scale,
        E, SPAN, SLICES, TOP_K, SLOTS, HASHED, 1, False,
    )  # fmt: skip


@triton.jit
def route_kernel(
    x,
    gate,
    partial,
    token_ids,
    bias,
    table,
    experts,
    weights,
    marks,
    ranks,
    firsts,
    order,
    tiles,
    counter,
    tokens,
    num_tiles,
    scale,
    E: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICE: tl.constexpr,
    BE: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    PLAIN: tl.constexpr,
    SPAN: tl.constexpr,
    SLICES: tl.constexpr,
    TOP_K: tl.constexpr,
    SLOTS: tl.constexpr,
    HASHED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BM: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """gate_slices; the last program of a token tile chooses for its tokens, and the last of those
    sorts. counter: int32 [1 + token tiles], zeros before and after."""
    gate_slice(x, gate, partial, tokens, E, WIDTH, SLICE, BE, BT, BK, PLAIN)
    tile = tl.program_id(0)
    last = last_of(counter + 1 + tile, tl.num_programs(1) * tl.num_programs(2))
    if last:
        first = tile * (BT // BLOCK_T)
        for block in range(first, tl.minimum(first + BT // BLOCK_T, tl.cdiv(tokens, BLOCK_T))):
            choose_block(
                block, partial, token_ids, bias, table, experts, weights, marks, tokens, scale, E,
                SPAN, SLICES, TOP_K, SLOTS, HASHED, BLOCK_T, True,
            )  # fmt: skip
        over = last_of(counter, tl.num_programs(0))
        if over:
            sort_pairs(
                experts, marks, ranks, firsts, order, tiles, tokens, num_tiles, E, SPAN, TOP_K,
                BLOCK_T, BM, ROWS, CHUNK,
            )  # fmt: skip


def prepare(gate: torch.Tensor) -> torch.Tensor:
    """[E, D], bf16 or float32, as it is."""
    return gate.contiguous()


def route(
    x: torch.Tensor,
    gate: torch.Tensor,
    token_ids: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
    k: int,
    scale: float,
) -> Routes:
    assert (bias is None) != (table is None), "exactly one of bias and table"
    (tokens, width), num_experts = x.shape, len(gate)
    if not tokens:
        return Routes(token_ids.new_empty(0, k), x.new_empty(0, k, dtype=torch.float32))
    plain = x.dtype == torch.float32 or gate.dtype == torch.float32
    slices, kind = triton.cdiv(width, SLICE), target_of(x).kind
    partial = x.new_empty(slices, tokens, num_experts, dtype=torch.float32)
    tile = 16 if plain else next(tile for limit, tile in TOKENS_A_TILE if tokens <= limit)
    experts = token_ids.new_empty(tokens, k)
    weights = partial.new_empty(tokens, k)
    grid = (triton.cdiv(tokens, tile), triton.cdiv(num_experts, EXPERTS_A_TILE), slices)
    product: dict[str, Any] = {
        "E": num_experts,
        "WIDTH": width,
        "SLICE": SLICE,
        "BE": EXPERTS_A_TILE,
        "BT": tile,
        "BK": 32 if plain else 128,
        "PLAIN": plain,
        "num_warps": 4,
        "num_stages": 3,
    }
    choice = {
        "SPAN": pow2(num_experts),
        "SLICES": slices,
        "TOP_K": k,
        "SLOTS": pow2(k),
        "HASHED": bias is None,
    }
    by = (weights if bias is None else bias, weights if table is None else table)
    chosen = (token_ids, *by, experts, weights)
    if not LAST_CHOOSES[kind] or tokens > MOST_SORTED:
        gate_slices[grid](x, gate, partial, tokens, **product)
        choose[(tokens,)](partial, *chosen, tokens, scale, E=num_experts, **choice, num_warps=1)
        return Routes(experts, weights)
    tiles = plan(tokens, k, num_experts, kind, PLAIN_HEIGHT if plain else None)
    pairs = Pairs(
        experts.new_empty(tokens * k, dtype=torch.int32),
        experts.new_empty(tiles.num_tiles, 3, dtype=torch.int32),
        tiles.height,
    )
    blocks = triton.cdiv(tokens, MARKED)
    route_kernel[grid](
        x,
        gate,
        partial,
        *chosen,
        experts.new_empty(blocks, num_experts, dtype=torch.uint8),
        experts.new_empty(blocks, num_experts, dtype=torch.int16),
        experts.new_empty(num_experts, dtype=torch.int32),
        pairs.order,
        pairs.tiles,
        counters(x.device, "route"),
        tokens,
        tiles.num_tiles,
        scale,
        **product,
        **choice,
        BLOCK_T=MARKED,
        BM=tiles.height,
        ROWS=min(32, pow2(blocks)),
        CHUNK=min(2048, max(64, pow2(tokens * k))),
    )
    return Routes(experts, weights, pairs)
