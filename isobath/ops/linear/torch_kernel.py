"""linear on a CPU: weights widened to fp32 and packed once at load, one fp32 GEMM a call."""

import torch

from isobath.ops.torch_gemm import matmul, pack


def prepare(weight: torch.Tensor) -> torch.Tensor:
    """The same values as float32 in the GEMM's own layout."""
    return pack(weight.float())


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return matmul(x.float(), weight)
