"""Mixture of experts of one layer: the router, the routed experts and the shared one.

The first num_hash_layers layers pick experts from a table by token id; the gate still runs there,
because the weights come from it. Every expert is clamped, the shared one too.
"""

from __future__ import annotations

from functools import partial

import torch

from isobath.config import ModelConfig
from isobath.model.aside import Aside
from isobath.model.weights import MoeWeights
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.experts import Summands
from isobath.ops.table import OpTable


def moe(
    x: torch.Tensor,
    quantized: Fp8Tensor | torch.Tensor,
    token_ids: torch.Tensor,
    w: MoeWeights,
    config: ModelConfig,
    ops: OpTable,
    aside: Aside,
) -> torch.Tensor | Summands:
    """x: [T, D], normed block input, and `quantized` as the experts take it. token_ids: int64 [T],
    -1 for padding. Returns [T, D] in x.dtype, or its Summands."""
    limit = config.swiglu_limit
    shared = aside(partial(ops.shared_expert, quantized, w.shared_w13, w.shared_w2, limit=limit))
    experts, weights = ops.route(
        x,
        w.gate,
        token_ids,
        bias=w.bias,
        table=w.table,
        k=config.num_experts_per_tok,
        scale=config.routed_scaling_factor,
    )
    y: torch.Tensor | Summands = ops.experts(
        quantized, experts, weights, w.experts, shared(), limit=limit
    )
    return y
