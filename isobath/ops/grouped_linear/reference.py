"""grouped_linear in plain terms: one fp64 product a group."""

import torch

from isobath.numerics.fp8 import Fp8Tensor, dequantize


def grouped_linear(x: torch.Tensor, weight: Fp8Tensor | torch.Tensor) -> torch.Tensor:
    wide = dequantize(weight) if isinstance(weight, Fp8Tensor) else weight
    blocks = [x[:, g].double() @ matrix.double().T for g, matrix in enumerate(wide)]
    return torch.cat(blocks, dim=-1).to(x.dtype)
