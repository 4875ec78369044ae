"""moe's first two launches: programs of the router beside those of the shared expert.

Either half waits for memory more than it computes with few tokens, and neither needs the other, so
they share their launches: the gate's product with the shared expert's first, the choice of experts
with its second. A program does what it does in the op it belongs to, so its bits are the same.
"""

# mypy: ignore-errors
# Device code has no types.

import triton
import triton.language as tl

from isobath.ops.experts.tl_dispatch import decode_row, place
from isobath.ops.fp8_linear.triton_kernel import fp8_tile
from isobath.ops.route.triton_kernel import chosen_by, gate_tile
from isobath.ops.shared_expert.tl_narrow import narrow_down_tile, narrow_hidden_tile
from isobath.ops.shared_expert.triton_kernel import wide_hidden_tile


@triton.jit(do_not_specialize=["T"])
def gate_and_hidden_kernel(
    x,
    gate,
    partial,
    counts,
    quantized,
    quantized_scale,
    w13,
    w13_scale,
    between,
    codes,
    scale,
    counter,
    limit,
    T,
    E: tl.constexpr,
    BINS: tl.constexpr,
    K: tl.constexpr,
    SLICE: tl.constexpr,
    BE: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    HIDDEN: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    EVEN_T: tl.constexpr,
    NARROW: tl.constexpr,
    QUANTIZE: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """Programs: the gate's tiles, slice by slice, then the shared expert's: narrow_hidden_tile() if
    NARROW, else wide_hidden_tile(). The first one also empties the buckets: counts, int32 [E]."""
    EXPERT_TILES: tl.constexpr = (E + BE - 1) // BE
    SLICES: tl.constexpr = (K + SLICE - 1) // SLICE
    program = tl.program_id(0)
    first = tl.cdiv(T, BT) * (EXPERT_TILES * SLICES)
    if program < first:
        if program == 0:
            bins = tl.arange(0, BINS)
            tl.store(counts + bins, tl.zeros([BINS], tl.int32), mask=bins < E)
        expert_tile = program // SLICES % EXPERT_TILES
        gate_tile(
            x, gate, partial, T, program // (EXPERT_TILES * SLICES), expert_tile, program % SLICES,
            E, K, SLICE, BE, BT, BK, STAGES, False,
        )  # fmt: skip
    elif NARROW:
        narrow_hidden_tile(
            program - first, quantized, quantized_scale, w13, w13_scale, between, codes, scale,
            counter, limit, T, HIDDEN, K, TOKENS, ROWS, LANES, QUANTIZE, QUANT_MAX, FP8,
        )  # fmt: skip
    else:
        wide_hidden_tile(
            program - first, quantized, quantized_scale, w13, w13_scale, codes, scale, limit, T,
            HIDDEN, K, TOKENS, EVEN_T, QUANT_MAX, FP8,
        )  # fmt: skip


@triton.jit(do_not_specialize=["T"])
def choice_and_down_kernel(
    partial,
    token_ids,
    bias,
    table,
    experts,
    weights,
    counts,
    buckets,
    quantized,
    quantized_scale,
    rows,
    between,
    codes,
    scale,
    w2,
    w2_scale,
    shared,
    route_scale,
    room,
    T,
    E: tl.constexpr,
    SPAN: tl.constexpr,
    SLICES: tl.constexpr,
    TOP_K: tl.constexpr,
    SLOTS: tl.constexpr,
    HASHED: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_SPAN: tl.constexpr,
    GROUP: tl.constexpr,
    HIDDEN: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    SWAP: tl.constexpr,
    LANES: tl.constexpr,
    EVEN_T: tl.constexpr,
    QUANTIZED: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """Programs: one a token that chooses its experts and puts it into their buckets; one a token
    that decodes its row, as the experts read it; the tiles of the shared expert's output, bf16
    [T, WIDTH], from its hidden vector in FP8 or, without QUANTIZED, in bf16."""
    program = tl.program_id(0)
    if program < T:
        token = program.to(tl.int64)
        chosen, value = chosen_by(
            token, partial, token_ids, bias, table, T, E, SPAN, SLICES, TOP_K, SLOTS, HASHED
        )
        slot = tl.arange(0, SLOTS)
        pair = token * TOP_K + slot
        tl.store(experts + pair, chosen, mask=slot < TOP_K)
        tl.store(weights + pair, value * route_scale, mask=slot < TOP_K)
        there = (slot < TOP_K) & (chosen >= 0)
        place(counts, buckets, tl.maximum(chosen, 0), pair.to(tl.int32), room, there)
    elif program < 2 * T:
        token = (program - T).to(tl.int64)
        decode_row(quantized, quantized_scale, rows, token, WIDTH, WIDTH_SPAN, FP8, GROUP)
    elif QUANTIZED:
        fp8_tile(
            program - 2 * T, codes, scale, w2, w2_scale, shared, T, WIDTH, HIDDEN, TOKENS, ROWS,
            SWAP, False, LANES, EVEN_T, WIDTH % ROWS == 0,
        )  # fmt: skip
    else:
        narrow_down_tile(
            program - 2 * T, between, w2, w2_scale, shared, T, WIDTH, HIDDEN, TOKENS, ROWS, EVEN_T,
            WIDTH % ROWS == 0, QUANT_MAX, FP8,
        )  # fmt: skip
