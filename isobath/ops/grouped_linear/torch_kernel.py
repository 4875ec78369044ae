"""grouped_linear on a CPU: weights widened to fp32 once at load, one GEMM a group.

A batched product would be one call, but its rows depend on their number.
"""

import torch

from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.torch_gemm import matmul


def prepare(weight: Fp8Tensor | torch.Tensor) -> torch.Tensor:
    """float32 [G * R, K]: four bytes a weight."""
    return dequantize(weight) if isinstance(weight, Fp8Tensor) else weight.float()


def grouped_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    groups = x.shape[1]
    parts = zip(x.float().unbind(1), weight.chunk(groups), strict=True)
    return torch.cat([matmul(*part) for part in parts], 1).to(x.dtype)
