"""experts on a CPU: weights widened to fp32 once at load, three ways to multiply by batch size.

Widened they take eight times the bytes of MXFP4, and packed beside it as much again: this backend
is for models that fit so. (bf16 products would be exact but for one rounding, yet that rounding
moves the hidden vector across FP8 steps: rows were off by up to 6 %.)

- Few tokens for the number of experts: a token's chosen weights are gathered and multiplied.
- Up to DENSE_TOKENS: every expert computes every token, and the chosen results are picked.
- More (prefill): tokens sorted by expert, one GEMM an expert. Only this way reads values back.

All three give the same bits: the same GEMM a hidden vector and expert (see ops/torch_gemm.py), and
a token's slots added in their order. So a token does not depend on the batch it is in.

2026-11-21, AMD EPYC (one thread, busy), D 256, I 128, us gathered / dense / sorted: 16 experts, 4
chosen, T = 1: 270 / 1030 / 970; 4: 1440 / 1520 / 1970; 8: 1910 / 1120 / 2750; 64: - / 2880 / 3970.
64 experts, 6 chosen, T = 1: 480 / 5990 / 1710; 8: 3810 / 7400 / 10000. Without invariance, where
T = 1 may be a matrix times a vector, 142 / 194 / 300 at 16 experts.

The first two take the same steps whatever the values, so that a step may be captured and replayed.
A token must not name one expert twice: the dense way would quantise the two hidden vectors as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.numerics.mxfp4 import Mxfp4Tensor, dequantize
from isobath.ops.experts import ExpertWeights
from isobath.ops.torch_fp8 import decode_rows, quantize_rows
from isobath.ops.torch_gemm import matmul, pack

DENSE_TOKENS = 64
"""Largest batch whose steps do not depend on values, so that it may be captured."""


@dataclass(frozen=True, slots=True)
class Widened:
    """w13: float32 [E, 2 * I, D]. w2: float32 [E, D, I]. packed_w13: all of w13 as one matrix.
    packed_w2: each expert's."""

    w13: torch.Tensor
    w2: torch.Tensor
    packed_w13: torch.Tensor
    packed_w2: tuple[torch.Tensor, ...]


def prepare(weights: ExpertWeights) -> Widened:
    w13, w2 = _wide(weights.w13), _wide(weights.w2)
    return Widened(w13, w2, pack(w13.flatten(0, 1)), tuple(pack(matrix) for matrix in w2))


def experts(
    x: Fp8Tensor | torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    expert_weights: Widened,
    shared: torch.Tensor | None,
    *,
    limit: float,
) -> torch.Tensor:
    if isinstance(x, Fp8Tensor):
        rows, dialect = decode_rows(x), x.dialect
    else:
        rows, dialect = x, None
    if experts.numel() <= len(expert_weights.w13):
        way = _gathered
    else:
        way = _dense if len(rows) <= DENSE_TOKENS else _sorted
    routed = way(rows, dialect, experts, weights, expert_weights, limit)
    if shared is not None:
        routed += shared
    return routed if dialect is None else routed.to(torch.bfloat16)


def _gathered(
    rows: torch.Tensor,
    dialect: Dialect | None,
    experts: torch.Tensor,
    weights: torch.Tensor,
    wide: Widened,
    limit: float,
) -> torch.Tensor:
    """The down-projection of a token multiplies each hidden vector by all of its experts at once
    and keeps the diagonal: k times the products, but one call that reads the weights once."""
    (tokens, k), (_, outer, inner) = experts.shape, wide.w2.shape
    chosen = experts.clamp_min(0)
    gate_up = rows.new_empty(tokens, k * 2 * inner)
    for token in range(tokens):
        w13 = wide.w13.index_select(0, chosen[token]).view(k * 2 * inner, outer)
        gate_up[token] = matmul(rows[token : token + 1], w13)[0]
    hidden = _activate(gate_up.view(tokens * k, 2 * inner), limit).mul_(weights.view(-1, 1))
    hidden.masked_fill_((experts < 0).view(-1, 1), 0)
    hidden = _round(hidden, dialect).view(tokens, k, inner)
    by_slot = rows.new_empty(tokens, k, outer)
    for token in range(tokens):
        w2 = wide.w2.index_select(0, chosen[token]).view(k * outer, inner)
        products = matmul(hidden[token], w2).view(k, k, outer)
        by_slot[token] = products.diagonal().t()
    return _sum_slots(by_slot, dialect)


def _dense(
    rows: torch.Tensor,
    dialect: Dialect | None,
    experts: torch.Tensor,
    weights: torch.Tensor,
    wide: Widened,
    limit: float,
) -> torch.Tensor:
    tokens, (count, _, inner) = len(rows), wide.w2.shape
    by_expert = weights.new_zeros(tokens, count + 1)  # column 0 collects padding
    by_expert = by_expert.scatter_(1, experts + 1, weights)[:, 1:].unsqueeze(2)
    gate_up = matmul(rows, wide.packed_w13).view(tokens, count, 2 * inner)
    hidden = _activate(gate_up, limit).mul_(by_expert).view(tokens * count, inner)
    hidden = _round(hidden, dialect).view(tokens, count, inner)
    products = torch.stack(
        [matmul(*one) for one in zip(hidden.unbind(1), wide.packed_w2, strict=True)]
    )
    token = torch.arange(tokens, device=rows.device).unsqueeze(1)
    by_slot = products[experts.clamp_min(0), token]
    return _sum_slots(by_slot.masked_fill_((experts < 0).unsqueeze(2), 0), dialect)


def _sorted(
    rows: torch.Tensor,
    dialect: Dialect | None,
    experts: torch.Tensor,
    weights: torch.Tensor,
    wide: Widened,
    limit: float,
) -> torch.Tensor:
    tokens, k = experts.shape
    flat = experts.reshape(-1)
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat + 1, minlength=len(wide.w13) + 1).tolist()
    by_slot = rows.new_zeros(tokens * k, rows.shape[1])
    factors = weights.reshape(-1, 1)
    start = counts[0]
    for expert, count in enumerate(counts[1:]):
        if not count:
            continue
        slots = order[start : start + count]
        start += count
        gate_up = matmul(rows.index_select(0, slots // k), wide.w13[expert])
        hidden = _activate(gate_up, limit).mul_(factors.index_select(0, slots))
        by_slot[slots] = matmul(_round(hidden, dialect), wide.packed_w2[expert])
    return _sum_slots(by_slot.view(tokens, k, -1), dialect)


def _sum_slots(by_slot: torch.Tensor, dialect: Dialect | None) -> torch.Tensor:
    """float32 [T, k, D] -> [T, D], rounded to bf16 with quantised rows, then added one slot after
    the other in every way and batch."""
    if dialect is not None:
        by_slot = by_slot.to(torch.bfloat16)
    total, *rest = by_slot.unbind(1)
    total = total.float() if dialect is not None else total.clone()
    for slot in rest:
        total += slot
    return total


def _activate(gate_up: torch.Tensor, limit: float) -> torch.Tensor:
    """silu(min(gate, limit)) * clamp(up): [..., 2 * I] -> [..., I]. numpy's exp, as in swiglu."""
    gate, up = gate_up.chunk(2, -1)
    gate = gate.clamp_max(limit)
    with np.errstate(over="ignore"):
        denominator = np.exp(-gate.numpy()) + np.float32(1)
    return gate.div_(torch.from_numpy(denominator)).mul_(up.clamp(-limit, limit))


def _round(hidden: torch.Tensor, dialect: Dialect | None) -> torch.Tensor:
    """bf16, then FP8 in groups of 128, decoded again; unchanged with plain weights."""
    if dialect is None:
        return hidden
    return decode_rows(quantize_rows(hidden.to(torch.bfloat16), dialect))


def _wide(weight: Mxfp4Tensor | torch.Tensor) -> torch.Tensor:
    return dequantize(weight) if isinstance(weight, Mxfp4Tensor) else weight.float()
