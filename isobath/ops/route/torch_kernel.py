"""route on a CPU: the CPU kernels of linear and router, then padding lanes emptied."""

import torch

from isobath.ops.linear.torch_kernel import linear, prepare
from isobath.ops.router.torch_kernel import router

__all__ = ["prepare", "route"]


def route(
    x: torch.Tensor,
    gate: torch.Tensor,
    token_ids: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
    k: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    experts, weights = router(
        linear(x, gate),
        bias=bias,
        table=table,
        token_ids=None if table is None else token_ids.clamp_min(0),
        k=k,
        scale=scale,
    )
    padding = (token_ids < 0).unsqueeze(1)
    return experts.masked_fill(padding, -1), weights.masked_fill_(padding, 0.0)
