"""grouped_linear on a CPU: weights widened to fp32 once at load, one batched product a call."""

import torch

from isobath.numerics.fp8 import Fp8Tensor, dequantize


def prepare(weight: Fp8Tensor | torch.Tensor) -> torch.Tensor:
    """float32 [G * R, K]: four bytes a weight."""
    return dequantize(weight) if isinstance(weight, Fp8Tensor) else weight.float()


def grouped_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    _, groups, width = x.shape
    by_group = weight.view(groups, -1, width).transpose(1, 2)
    y = torch.bmm(x.transpose(0, 1).float(), by_group)
    return y.transpose(0, 1).flatten(1).to(x.dtype)
