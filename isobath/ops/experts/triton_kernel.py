"""experts on a GPU: buckets, gate and up, down; all grids known from T. Who reads the result adds
it up: see ops/tl_hyper.py. The op `moe` fills the buckets itself and shares the products.

The tile height (tokens a program multiplies) follows the tokens an expert can expect, from T, k and
E alone, so a captured step keeps it. It changes no result: K is summed in one order at any height.

MXFP4 weights are widened to bf16 with their group's scale multiplied in. Widening to FP8 instead,
with the sum scaled at every group of 32, or by a byte table, was slower: 2026-11-21, H200, Triton
3.6, 256 experts of [4096, 4096] in one launch, packed TB/s at 16 / 32 / 64 tokens an expert: 2.49 /
1.55 / 0.88 and 2.15 / 1.81 / 1.25. FORMS is chosen by registers and spills, not by time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from isobath.numerics.dialect import OCP, Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.ops.experts import ExpertWeights, Summands
from isobath.ops.experts.packing import TILE, Packed, pack, random_packed
from isobath.ops.experts.tl_dispatch import dispatch
from isobath.ops.experts.tl_products import down, gate_up
from isobath.ops.tl_common import fp8_of, pow2, target_of

FIXED_HEIGHT = 64
"""The tile height of the ablation without dynamic tiles."""
PLAIN_HEIGHT = 16
"""The tile height of float32 products, for which no order of sums is known to be kept."""
HEIGHTS = ((8, 16), (32, 32), (96, 64))
"""(tokens an expert can expect, at most; tile height); above the last, the tallest in FORMS."""


@dataclass(frozen=True, slots=True)
class Form:
    """rows: of weights a program; 256 of w13 are gate and up at once, 128 one after the other.
    num_registers: at most so many a thread, or None for as many as wanted (sm_90 only)."""

    rows: int
    num_warps: int
    num_stages: int
    num_registers: int | None = None


FORMS: dict[str, dict[int, tuple[Form, Form]]] = {
    "cuda": {
        16: (Form(256, 4, 3), Form(128, 4, 3)),
        32: (Form(256, 4, 3), Form(128, 4, 3)),
        64: (Form(256, 8, 3), Form(128, 8, 3)),
        128: (Form(256, 8, 3), Form(128, 8, 3)),
    },
    "hip": {
        16: (Form(256, 4, 2), Form(128, 4, 2)),
        32: (Form(256, 4, 2), Form(128, 4, 2)),
        64: (Form(256, 8, 2), Form(128, 8, 2)),
    },
}
"""By kind and tile height, the forms of gate_up and of down. gfx942's are those that neither spill
nor need more than 64 KiB of LDS, through which its widened weights pass (Triton 3.6)."""
DEPTHS = {"cuda": TILE, "hip": TILE // 2}
"""K a step, by kind; PLAIN_DEPTH for float32 products."""
PLAIN_DEPTH = 32
DISPATCH_CHUNK = 512
"""Most pairs that a program places."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Both matrices of all experts. height: the tile height to use whatever the batch, or None."""

    w13: Packed | torch.Tensor
    w2: Packed | torch.Tensor
    height: int | None = None


@dataclass(frozen=True, slots=True)
class TilePlan:
    """height: tokens a program. depth: K a step. gate_up, down: see Form. num_tiles: programs a
    block of output columns, enough for any choice of experts."""

    height: int
    depth: int
    gate_up: Form
    down: Form
    num_tiles: int


def prepare(weights: ExpertWeights) -> Prepared:
    return Prepared(_prepare(weights.w13, paired=True), _prepare(weights.w2, paired=False))


def random_prepared(
    num_experts: int, width: int, inner: int, generator: torch.Generator
) -> Prepared:
    """Random MXFP4 weights, built on the generator's device in this backend's form."""
    lanes = _lanes(torch.empty(0, device=generator.device))
    return Prepared(
        random_packed(num_experts, 2 * inner, width, lanes, generator, paired=True),
        random_packed(num_experts, width, inner, lanes, generator, paired=False),
    )


def plan(tokens: int, k: int, num_experts: int, kind: str, height: int | None = None) -> TilePlan:
    """Tiles for T tokens of k experts each; kind as in LaunchTarget."""
    pairs, kind = tokens * k, "hip" if kind == "hip" else "cuda"
    expected = min(tokens, pairs / num_experts)
    tallest = max(FORMS[kind])
    fitting = [h for limit, h in HEIGHTS if expected <= limit]
    height = min(height or (fitting[0] if fitting else tallest), tallest)
    num_tiles = min(pairs, num_experts + pairs // height)
    return TilePlan(height, DEPTHS[kind], *FORMS[kind][height], num_tiles)


def experts(
    x: Fp8Tensor | torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    expert_weights: Prepared,
    shared: torch.Tensor | None,
    *,
    limit: float,
) -> Summands:
    experts, weights = experts.contiguous(), weights.contiguous()
    num_experts, tokens = expert_weights.w2.shape[0], len(experts)
    buckets = Buckets.empty(num_experts, tokens, experts.device)
    buckets.counts.zero_()
    rows = _dispatch(x, experts, buckets)
    dialect = x.dialect if isinstance(x, Fp8Tensor) else OCP
    return multiply(
        rows, buckets, experts, weights, expert_weights, shared, dialect=dialect, limit=limit
    )


@dataclass(frozen=True, slots=True)
class Buckets:
    """Pairs by expert, see tl_dispatch.py. counts: int32 [E]. pairs: int32 [E, room]."""

    counts: torch.Tensor
    pairs: torch.Tensor

    @staticmethod
    def empty(num_experts: int, room: int, device: torch.device) -> Buckets:
        """Neither counted nor zeroed yet."""
        counts = torch.empty(num_experts, dtype=torch.int32, device=device)
        return Buckets(counts, counts.new_empty(num_experts, room))


def multiply(
    rows: torch.Tensor,
    buckets: Buckets,
    experts: torch.Tensor,
    weights: torch.Tensor,
    expert_weights: Prepared,
    shared: torch.Tensor | None,
    *,
    dialect: Dialect,
    limit: float,
) -> Summands:
    """Launch both products of activation rows [T, D], bf16 (decoded FP8) or plain float32, whose
    pairs are in their buckets. experts: int64 [T, k]. weights: float32 [T, k]."""
    (tokens, width), k = rows.shape, experts.shape[1]
    num_experts, inner = expert_weights.w2.shape[0], expert_weights.w2.shape[2]
    plain, kind = rows.dtype == torch.float32, target_of(rows).kind
    dtype = torch.float32 if plain else torch.bfloat16
    products = rows.new_empty(tokens, k, width, dtype=dtype)
    if not tokens:
        return Summands(products, experts, shared, dtype)
    tiles = plan(tokens, k, num_experts, kind, PLAIN_HEIGHT if plain else expert_weights.height)
    common = {
        "E": num_experts,
        "BINS": pow2(num_experts),
        "WIDTH": width,
        "INNER": inner,
        "BM": tiles.height,
        "BK": PLAIN_DEPTH if plain else tiles.depth,
        "PLAIN": plain,
    }
    hidden = rows.new_empty(tokens * k, inner)
    gate_up[(tiles.num_tiles * (inner // TILE),)](
        rows,
        buckets.counts,
        buckets.pairs,
        weights,
        *_operands(expert_weights.w13),
        hidden,
        k,
        buckets.pairs.shape[1],
        _lift(expert_weights.w13),
        limit,
        **_form(tiles.gate_up, expert_weights.w13, kind),
        **common,
        **fp8_of(dialect),
    )
    down[(tiles.num_tiles * (width // tiles.down.rows),)](
        hidden,
        buckets.counts,
        buckets.pairs,
        *_operands(expert_weights.w2),
        products,
        buckets.pairs.shape[1],
        _lift(expert_weights.w2),
        **_form(tiles.down, expert_weights.w2, kind),
        **common,
    )
    return Summands(products, experts, shared, dtype)


def _dispatch(x: Fp8Tensor | torch.Tensor, experts: torch.Tensor, buckets: Buckets) -> torch.Tensor:
    """Fill the buckets; the activation rows as the products read them."""
    pairs, chunk = experts.numel(), min(DISPATCH_CHUNK, max(64, pow2(experts.numel())))
    if isinstance(x, Fp8Tensor):
        codes, scale, dialect = x.data.view(torch.uint8), x.scale, x.dialect
        rows = codes.new_empty(codes.shape, dtype=torch.bfloat16)
        decoded = len(codes)
    else:
        codes = scale = rows = x.contiguous()
        dialect, decoded = OCP, 0
    width = codes.shape[1]
    if pairs:
        dispatch[(-(-pairs // chunk) + decoded,)](
            experts,
            buckets.counts,
            buckets.pairs,
            codes,
            scale,
            rows,
            pairs,
            len(experts),
            CHUNK=chunk,
            WIDTH=width,
            SPAN=pow2(width),
            FP8=fp8_of(dialect)["FP8"],
            GROUP=ACTIVATION_BLOCK[1],
            PLAIN=decoded == 0,
            num_warps=4,
        )
    return rows


def _prepare(weight: Mxfp4Tensor | torch.Tensor, *, paired: bool) -> Packed | torch.Tensor:
    if isinstance(weight, Mxfp4Tensor):
        return pack(weight, _lanes(weight.packed), paired=paired)
    return weight.float().contiguous()


def _lanes(tensor: torch.Tensor) -> str:
    return "mfma" if target_of(tensor).kind == "hip" else "wgmma"


def _operands(weight: Packed | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (weight.words, weight.scale) if isinstance(weight, Packed) else (weight, weight)


def _lift(weight: Packed | torch.Tensor) -> float:
    return weight.lift if isinstance(weight, Packed) else 1.0


def _form(form: Form, weight: Packed | torch.Tensor, kind: str) -> dict[str, Any]:
    """The arguments of a launch that follow from its form, its weights and the machine."""
    chosen: dict[str, Any] = {
        "ROWS": form.rows,
        "WGMMA": isinstance(weight, Packed) and weight.lanes == "wgmma",
        "NATIVE": kind == "cuda",
        "num_warps": form.num_warps,
        "num_stages": form.num_stages,
    }
    if form.num_registers is not None:
        chosen["maxnreg"] = form.num_registers
    return chosen
