"""swiglu in plain terms, fp64."""

import torch


def swiglu(gate: torch.Tensor, up: torch.Tensor, *, limit: float) -> torch.Tensor:
    g, u = gate.double().clamp(max=limit), up.double().clamp(-limit, limit)
    return (g * torch.sigmoid(g) * u).to(gate.dtype)
