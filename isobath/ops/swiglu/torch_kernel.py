"""swiglu on a CPU: fp32, rounded once."""

import torch
from torch.nn.functional import silu


def swiglu(gate: torch.Tensor, up: torch.Tensor, *, limit: float) -> torch.Tensor:
    g, u = gate.float().clamp_max(limit), up.float().clamp(-limit, limit)
    return silu(g).mul_(u).to(gate.dtype)
