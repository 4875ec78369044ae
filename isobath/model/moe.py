"""Mixture of experts of one layer: the router, the routed experts and the shared one.

The first num_hash_layers layers pick experts from a table by token id; the gate still runs there,
because the weights come from it. Every expert is clamped, the shared one too.
"""

from __future__ import annotations

import torch

from isobath.config import ModelConfig
from isobath.model.project import Projector
from isobath.model.weights import MoeWeights


def moe(
    x: torch.Tensor,
    token_ids: torch.Tensor,
    w: MoeWeights,
    config: ModelConfig,
    project: Projector,
) -> torch.Tensor:
    """x: [T, D], normed block input. token_ids: int64 [T]. Returns [T, D] in x.dtype."""
    ops, limit = project.ops, config.swiglu_limit
    experts, weights = ops.router(
        ops.linear(x, w.gate),
        bias=w.bias,
        table=w.table,
        token_ids=None if w.table is None else token_ids,
        k=config.num_experts_per_tok,
        scale=config.routed_scaling_factor,
    )
    quantized = project.quantize(x)
    gate, up = project(quantized, w.shared_w13).chunk(2, dim=1)
    hidden = ops.swiglu(gate, up, limit=limit)
    shared = project(project.quantize(hidden), w.shared_w2)
    y: torch.Tensor = ops.experts(quantized, experts, weights, w.experts, shared, limit=limit)
    return y
