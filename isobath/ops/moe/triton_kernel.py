"""moe in Triton: four launches. The gate's product beside the shared expert's hidden vector, the
choice of experts beside the shared expert's output (tl_moe.py), and the two products of experts.

Plain operands (exact numerics) take the launches of the parts, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton

from isobath.errors import DialectMismatch
from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor
from isobath.ops.experts import ExpertWeights, Summands
from isobath.ops.experts import triton_kernel as routed
from isobath.ops.moe.tl_moe import choice_and_down_kernel, gate_and_hidden_kernel
from isobath.ops.route import triton_kernel as router
from isobath.ops.shared_expert import triton_kernel as shared
from isobath.ops.tl_common import fp8_of, pow2, target_of
from isobath.ops.tl_gemm import Tile, Tiles, choose
from isobath.ops.tl_gemm_few import COUNTERS, counters

DOWN_TILES: Tiles = {
    "cuda": (
        (16, Tile(16, 16, 4, 6, swap=True, lanes=4)),
        (64, Tile(32, 32, 4, 5, swap=True, lanes=2)),
        (0, Tile(64, 128, 4, 4)),
    ),
    "hip": (
        (16, Tile(16, 32, 4, 2, swap=True)),
        (32, Tile(32, 32, 4, 2, swap=True)),
        (64, Tile(64, 64, 4, 2, swap=True)),
        (0, Tile(128, 128, 8, 2)),
    ),
    "cpu": ((4, Tile(16, 16, 4, 1, swap=True, lanes=2)), (0, Tile(32, 64, 4, 1))),
}
"""Of the shared expert's output, beside which experts are chosen. Predicted, not measured."""


def prepare(
    weight: ExpertWeights | Fp8Tensor | torch.Tensor,
) -> routed.Prepared | Fp8Tensor | torch.Tensor:
    """Experts as `experts` prepares them; matrices as they are."""
    if isinstance(weight, ExpertWeights):
        return routed.prepare(weight)
    return weight if isinstance(weight, Fp8Tensor) else router.prepare(weight)


@dataclass(frozen=True, slots=True)
class Choice:
    """How experts are chosen: bias, table, k and scale as route takes them."""

    bias: torch.Tensor | None
    table: torch.Tensor | None
    k: int
    scale: float


def moe(
    x: torch.Tensor,
    quantized: Fp8Tensor | torch.Tensor,
    token_ids: torch.Tensor,
    gate: torch.Tensor,
    expert_weights: routed.Prepared,
    shared_w13: Fp8Tensor | torch.Tensor,
    shared_w2: Fp8Tensor | torch.Tensor,
    *,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
    k: int,
    scale: float,
    limit: float,
) -> Summands:
    assert (bias is None) != (table is None), "exactly one of bias and table"
    if not isinstance(quantized, Fp8Tensor) or not len(x):
        chosen, weights = router.route(x, gate, token_ids, bias=bias, table=table, k=k, scale=scale)
        y = shared.shared_expert(quantized, shared_w13, shared_w2, limit=limit)
        return routed.experts(quantized, chosen, weights, expert_weights, y, limit=limit)
    w13, w2 = _matrix(shared_w13, quantized), _matrix(shared_w2, quantized)
    room = len(x) * (k if bias is None else 1)  # nobody promises a table of distinct experts
    buckets = routed.Buckets.empty(len(gate), room, x.device)
    partial, hidden = _gate_and_hidden(x, quantized, gate, w13, buckets, limit)
    chosen, weights, rows, y = _choice_and_down(
        partial, quantized, token_ids, Choice(bias, table, k, scale), buckets, hidden, w2
    )
    return routed.multiply(
        rows, buckets, chosen, weights, expert_weights, y, dialect=quantized.dialect, limit=limit
    )


@dataclass(frozen=True, slots=True)
class Hidden:
    """The shared expert's hidden vector [T, I]: as FP8 codes (uint8) and UE8M0 bytes if `quantized`
    says so, else in bf16."""

    codes: torch.Tensor
    scale: torch.Tensor
    between: torch.Tensor
    quantized: bool


def _gate_and_hidden(
    x: torch.Tensor,
    quantized: Fp8Tensor,
    gate: torch.Tensor,
    w13: Fp8Tensor,
    buckets: routed.Buckets,
    limit: float,
) -> tuple[torch.Tensor, Hidden]:
    """(the gate's logits in slices, float32 [slices, T, E]; the shared hidden vector)."""
    (tokens, width), num_experts, inner = x.shape, len(gate), len(w13.data) // 2
    assert x.dtype == gate.dtype == torch.bfloat16, (x.dtype, gate.dtype)
    assert inner % 128 == 0 and width % 128 == 0, (inner, width)
    kind = target_of(x).kind
    tile, options = choose(shared.TILES, x, tokens)
    narrow = tokens <= shared.FEW_TOKENS[kind]
    quantize = not narrow or shared.LAST_QUANTIZES[kind]
    tile = tile.narrowed(width) if narrow else tile
    token_tiles = triton.cdiv(tokens, tile.tokens)
    assert not narrow or not quantize or token_tiles * inner // 128 <= COUNTERS, (tokens, tile)
    between = x.new_empty((tokens, inner) if narrow else (0,))
    codes = torch.empty(tokens, inner, dtype=torch.uint8, device=x.device)
    scale = codes.new_empty(tokens, inner // 128)
    slices = triton.cdiv(width, router.SLICE)
    partial = torch.empty(slices, tokens, num_experts, dtype=torch.float32, device=x.device)
    gate_tokens = router.tokens_a_tile(tokens)
    gating = triton.cdiv(tokens, gate_tokens) * triton.cdiv(num_experts, router.EXPERTS_A_TILE)
    hiding = token_tiles * (inner * 2 // tile.rows if narrow else inner // 128)
    gate_and_hidden_kernel[(gating * slices + hiding,)](
        x.contiguous(),
        gate,
        partial,
        buckets.counts,
        quantized.data,
        quantized.scale,
        w13.data,
        w13.scale,
        between,
        codes,
        scale,
        counters(x.device, "shared_expert") if narrow and quantize else scale,
        limit,
        tokens,
        E=num_experts,
        BINS=pow2(num_experts),
        K=width,
        SLICE=router.SLICE,
        BE=router.EXPERTS_A_TILE,
        BT=gate_tokens,
        BK=router.STEP,
        STAGES=router.STAGES[kind],
        HIDDEN=inner,
        TOKENS=tile.tokens,
        ROWS=tile.rows,
        LANES=tile.lanes,
        EVEN_T=tokens % tile.tokens == 0,
        NARROW=narrow,
        QUANTIZE=quantize,
        **fp8_of(quantized.dialect),
        **options,
    )
    return partial, Hidden(codes, scale, between, quantize)


def _choice_and_down(
    partial: torch.Tensor,
    quantized: Fp8Tensor,
    token_ids: torch.Tensor,
    choice: Choice,
    buckets: routed.Buckets,
    hidden: Hidden,
    w2: Fp8Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(experts int64 [T, k], weights float32 [T, k], activation rows bf16 [T, D], the shared
    expert's output bf16 [T, D])."""
    slices, tokens, num_experts = partial.shape
    width, inner = w2.data.shape
    tile, options = choose(DOWN_TILES, partial, tokens)
    tile = tile.narrowed(inner) if hidden.quantized else tile
    experts = token_ids.new_empty(tokens, choice.k)
    weights = partial.new_empty(tokens, choice.k)
    rows = torch.empty(tokens, width, dtype=torch.bfloat16, device=partial.device)
    y = torch.empty_like(rows)
    down = triton.cdiv(tokens, tile.tokens) * triton.cdiv(width, tile.rows)
    unused: Any = weights
    choice_and_down_kernel[(2 * tokens + down,)](
        partial,
        token_ids,
        unused if choice.bias is None else choice.bias,
        unused if choice.table is None else choice.table,
        experts,
        weights,
        buckets.counts,
        buckets.pairs,
        quantized.data.view(torch.uint8),
        quantized.scale,
        rows,
        hidden.between,
        hidden.codes.view(quantized.dialect.dtype),
        hidden.scale,
        w2.data,
        w2.scale,
        y,
        choice.scale,
        buckets.pairs.shape[1],
        tokens,
        E=num_experts,
        SPAN=pow2(num_experts),
        SLICES=slices,
        TOP_K=choice.k,
        SLOTS=pow2(choice.k),
        HASHED=choice.bias is None,
        WIDTH=width,
        WIDTH_SPAN=pow2(width),
        GROUP=ACTIVATION_BLOCK[1],
        HIDDEN=inner,
        TOKENS=tile.tokens,
        ROWS=tile.rows,
        SWAP=tile.swap,
        LANES=tile.lanes,
        EVEN_T=not (tile.swap and hidden.quantized) and tokens % tile.tokens == 0,
        QUANTIZED=hidden.quantized,
        **fp8_of(quantized.dialect),
        **options,
    )
    return experts, weights, rows, y


def _matrix(weight: Fp8Tensor | torch.Tensor, x: Fp8Tensor) -> Fp8Tensor:
    """A weight of the shared expert, in the dialect of its input."""
    found = weight.dialect if isinstance(weight, Fp8Tensor) else weight.dtype
    if not isinstance(weight, Fp8Tensor) or found != x.dialect:
        raise DialectMismatch(
            f"moe(shared_w13=, shared_w2=): expected {x.dialect} like the activations",
            found=str(found),
            effect="a product would be off by a factor of two",
            do="transcode the weights at load",
        )
    return weight
