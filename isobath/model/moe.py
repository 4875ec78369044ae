"""Mixture of experts of one layer: the router, the routed experts and the shared one.

The first num_hash_layers layers pick experts from a table by token id; the gate still runs there,
because the weights come from it. Every expert is clamped, the shared one too.
"""

from __future__ import annotations

import torch

from isobath.config import ModelConfig
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
) -> torch.Tensor | Summands:
    """x: [T, D], normed block input, and `quantized` as the experts take it. token_ids: int64 [T],
    -1 for padding. Returns [T, D] in x.dtype, or its Summands."""
    y: torch.Tensor | Summands = ops.moe(
        x,
        quantized,
        token_ids,
        w.gate,
        w.experts,
        w.shared_w13,
        w.shared_w2,
        bias=w.bias,
        table=w.table,
        k=config.num_experts_per_tok,
        scale=config.routed_scaling_factor,
        limit=config.swiglu_limit,
    )
    return y
