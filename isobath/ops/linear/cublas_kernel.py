"""linear through cuBLAS: bf16 operands with a float32 result, or fp32 without TF32."""

import torch

from isobath.ops.libraries import require_cuda
from isobath.target import detect

require_cuda("linear/cublas", detect())


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if x.dtype == weight.dtype == torch.bfloat16:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    return torch.mm(x.float(), weight.float().t())
