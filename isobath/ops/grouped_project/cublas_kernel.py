"""grouped_project through cuBLAS: weights decoded to bf16 once at load, one batched product.

Two launches and twice the weight bytes of the Triton kernel, for the library's large tiles.
"""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.grouped_project.triton_kernel import grouped_project as exact
from isobath.ops.libraries import require_cuda
from isobath.ops.quantize_act.triton_kernel import quantize_act
from isobath.target import detect

require_cuda("grouped_project/cublas", detect())


def prepare(weight: Fp8Tensor | torch.Tensor) -> torch.Tensor:
    """[G, R, K]: FP8 as bf16, which holds its values exactly; plain weights as they are."""
    if not isinstance(weight, Fp8Tensor):
        return weight
    groups = [dequantize(_group(weight, g)).to(torch.bfloat16) for g in range(len(weight.data))]
    return torch.stack(groups)  # decoded one by one: float32 of all would be four times the bytes


def grouped_project(
    x: torch.Tensor, weight: torch.Tensor, *, dialect: Dialect | None
) -> Fp8Tensor | torch.Tensor:
    tokens, groups, _ = x.shape
    dtype = torch.promote_types(x.dtype, weight.dtype)
    if dtype != torch.bfloat16 or not tokens:  # the library's fp32 rows depend on their number
        return exact(x, weight, dialect=dialect)
    out = torch.empty(tokens, groups, weight.shape[1], dtype=dtype, device=x.device)
    torch.bmm(
        x.to(dtype).transpose(0, 1), weight.to(dtype).transpose(1, 2), out=out.transpose(0, 1)
    )
    y = out.view(tokens, -1).to(x.dtype)
    return y if dialect is None else quantize_act(y, dialect)


def _group(weight: Fp8Tensor, g: int) -> Fp8Tensor:
    return Fp8Tensor(weight.data[g], weight.scale[g], weight.dialect, weight.quant_block)
