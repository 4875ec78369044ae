"""grouped_linear on a CPU: one GEMM a group, FP8 weights decoded to bf16 and packed at load.

A batched product would be one call, but its rows depend on their number.
"""

import torch

from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.torch_gemm import matmul, narrow, pack


def prepare(weight: Fp8Tensor | torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Each group's [R, K], packed: bf16 if it was FP8, else float32."""
    wide = narrow(dequantize(weight)) if isinstance(weight, Fp8Tensor) else weight.float()
    return tuple(pack(matrix) for matrix in wide)


def grouped_linear(x: torch.Tensor, weight: tuple[torch.Tensor, ...]) -> torch.Tensor:
    parts = zip(x.unbind(1), weight, strict=True)
    return torch.cat([matmul(*part) for part in parts], 1).to(x.dtype)
