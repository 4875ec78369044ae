"""experts on a CPU: weights widened to fp32 once at load, three ways to multiply by batch size.

Widening costs eight times the bytes of MXFP4: this backend is for models that fit so.

- Few tokens for the number of experts: the chosen experts' weights are gathered and multiplied in
  one batched product. Copying an expert's weights costs twice what multiplying by them does.
- Up to DENSE_TOKENS: every expert computes every token in one GEMM, and a mask keeps the chosen.
- More (prefill): tokens sorted by expert, one GEMM an expert. Only this way reads values back.

2026-11-21, AMD EPYC (one thread), D 256, I 128, us gathered / dense / sorted: 16 experts, 4 chosen,
T = 1: 130 / 183 / 284; 2: 564 / 265 / 488; 16: 5226 / 1289 / 1623; 64: 93152 / 3296 / 2191.
64 experts, 6 chosen, T = 1: 179 / 3585 / 506; 4: 2551 / 4754 / 3048; 16: 8562 / 5545 / 4745.

The first two take the same steps whatever the values, so that a step may be captured and replayed.
A token must not name one expert twice: the dense way would quantise the two hidden vectors as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import silu

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.numerics.mxfp4 import Mxfp4Tensor, dequantize
from isobath.ops.experts import ExpertWeights
from isobath.ops.torch_fp8 import decode_rows, quantize_rows

DENSE_TOKENS = 64
"""Largest batch whose steps do not depend on values, so that it may be captured."""


@dataclass(frozen=True, slots=True)
class Widened:
    """w13: float32 [E, 2 * I, D]. w2: float32 [E, I, D], transposed."""

    w13: torch.Tensor
    w2: torch.Tensor


def prepare(weights: ExpertWeights) -> Widened:
    return Widened(_wide(weights.w13), _wide(weights.w2).transpose(1, 2).contiguous())


def experts(
    x: Fp8Tensor | torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    expert_weights: Widened,
    *,
    limit: float,
) -> torch.Tensor:
    if isinstance(x, Fp8Tensor):
        rows, dialect = decode_rows(x), x.dialect
    else:
        rows, dialect = x, None
    if 2 * experts.numel() < len(expert_weights.w13):
        return _gathered(rows, dialect, experts, weights, expert_weights, limit)
    if len(rows) <= DENSE_TOKENS:
        return _dense(rows, dialect, experts, weights, expert_weights, limit)
    return _sorted(rows, dialect, experts, weights, expert_weights, limit)


def _gathered(
    rows: torch.Tensor,
    dialect: Dialect | None,
    experts: torch.Tensor,
    weights: torch.Tensor,
    wide: Widened,
    limit: float,
) -> torch.Tensor:
    (tokens, k), (_, inner, outer) = experts.shape, wide.w2.shape
    chosen = experts.clamp_min(0).view(-1)
    w13 = wide.w13.index_select(0, chosen).view(tokens, k * 2 * inner, outer)
    gate_up = torch.bmm(w13, rows.unsqueeze(2)).view(tokens, k, 2 * inner)
    hidden = _activate(gate_up, limit).mul_(weights.unsqueeze(2))
    hidden.masked_fill_((experts < 0).unsqueeze(2), 0)
    hidden = _round(hidden.view(tokens * k, inner), dialect).view(tokens, 1, k * inner)
    w2 = wide.w2.index_select(0, chosen).view(tokens, k * inner, outer)
    return torch.bmm(hidden, w2).squeeze(1)


def _dense(
    rows: torch.Tensor,
    dialect: Dialect | None,
    experts: torch.Tensor,
    weights: torch.Tensor,
    wide: Widened,
    limit: float,
) -> torch.Tensor:
    tokens, (count, inner, outer) = len(rows), wide.w2.shape
    by_expert = weights.new_zeros(tokens, count + 1)  # column 0 collects padding
    by_expert = by_expert.scatter_(1, experts + 1, weights)[:, 1:].unsqueeze(2)
    gate_up = torch.mm(rows, wide.w13.view(-1, outer).t()).view(tokens, count, 2 * inner)
    hidden = _activate(gate_up, limit).mul_(by_expert).masked_fill_(by_expert == 0, 0)
    hidden = _round(hidden.view(tokens * count, inner), dialect).view(tokens, count * inner)
    return torch.mm(hidden, wide.w2.view(-1, outer))


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
        gate_up = torch.mm(rows.index_select(0, slots // k), wide.w13[expert].t())
        hidden = _activate(gate_up, limit).mul_(factors.index_select(0, slots))
        by_slot[slots] = torch.mm(_round(hidden, dialect), wide.w2[expert])
    return by_slot.view(tokens, k, -1).sum(1)


def _activate(gate_up: torch.Tensor, limit: float) -> torch.Tensor:
    """silu(min(gate, limit)) * clamp(up): [..., 2 * I] -> [..., I]."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate.clamp_max(limit)).mul_(up.clamp(-limit, limit))


def _round(hidden: torch.Tensor, dialect: Dialect | None) -> torch.Tensor:
    """bf16, then FP8 in groups of 128, decoded again; unchanged with plain weights."""
    if dialect is None:
        return hidden
    return decode_rows(quantize_rows(hidden.to(torch.bfloat16), dialect))


def _wide(weight: Mxfp4Tensor | torch.Tensor) -> torch.Tensor:
    return dequantize(weight) if isinstance(weight, Mxfp4Tensor) else weight.float()
