"""moe on a CPU: the CPU kernels of its parts."""

import torch

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.experts import ExpertWeights
from isobath.ops.experts import torch_kernel as routed
from isobath.ops.fp8_linear.torch_kernel import Widened
from isobath.ops.route import torch_kernel as router
from isobath.ops.shared_expert import torch_kernel as shared


def prepare(
    weight: ExpertWeights | Fp8Tensor | torch.Tensor,
) -> routed.Widened | Widened | torch.Tensor:
    """Experts as `experts` prepares them, matrices as shared_expert does, which is also route's
    way with the gate."""
    return routed.prepare(weight) if isinstance(weight, ExpertWeights) else shared.prepare(weight)


def moe(
    x: torch.Tensor,
    quantized: Fp8Tensor | torch.Tensor,
    token_ids: torch.Tensor,
    gate: torch.Tensor,
    expert_weights: routed.Widened,
    shared_w13: Widened | torch.Tensor,
    shared_w2: Widened | torch.Tensor,
    *,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
    k: int,
    scale: float,
    limit: float,
) -> torch.Tensor:
    chosen, weights = router.route(x, gate, token_ids, bias=bias, table=table, k=k, scale=scale)
    y = shared.shared_expert(quantized, shared_w13, shared_w2, limit=limit)
    return routed.experts(quantized, chosen, weights, expert_weights, y, limit=limit)
