"""moe in plain terms: the references of its parts."""

import torch

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.experts import ExpertWeights
from isobath.ops.experts.reference import experts
from isobath.ops.route.reference import route
from isobath.ops.shared_expert.reference import shared_expert


def moe(
    x: torch.Tensor,
    quantized: Fp8Tensor | torch.Tensor,
    token_ids: torch.Tensor,
    gate: torch.Tensor,
    expert_weights: ExpertWeights,
    shared_w13: Fp8Tensor | torch.Tensor,
    shared_w2: Fp8Tensor | torch.Tensor,
    *,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
    k: int,
    scale: float,
    limit: float,
) -> torch.Tensor:
    chosen, weights = route(x, gate, token_ids, bias=bias, table=table, k=k, scale=scale)
    shared = shared_expert(quantized, shared_w13, shared_w2, limit=limit)
    return experts(quantized, chosen, weights, expert_weights, shared, limit=limit)
