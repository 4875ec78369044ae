"""grouped_project through cuBLAS: weights decoded to bf16 once at load, one batched product.

Two launches, for the library's large tiles, and three bytes a weight: few tokens, and operands in
fp32, go to the Triton kernel and the weights as they came. A row's last bits may then depend on how
many there are.
"""

from __future__ import annotations

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.grouped_project.triton_kernel import grouped_project as few
from isobath.ops.grouped_project.widened import Widened
from isobath.ops.grouped_project.widened import widen as prepare
from isobath.ops.libraries import require_cuda
from isobath.ops.quantize_act.triton_kernel import quantize_act
from isobath.target import detect

__all__ = ["grouped_project", "prepare"]

require_cuda("grouped_project/cublas", detect())

MANY_TOKENS = 32
"""From this many on the library was the faster at V4-Flash's shape: H200, 2026-11-22, one run at 8,
64, 256 and 1,024 tokens against tiles of 128 weight rows; 32 itself was not measured."""


def grouped_project(
    x: torch.Tensor, weight: Widened, *, dialect: Dialect | None
) -> Fp8Tensor | torch.Tensor:
    tokens, groups, _ = x.shape
    values = weight.values
    if tokens < MANY_TOKENS or weight.product_dtype(x) != torch.bfloat16:
        return few(x, weight.given, dialect=dialect)
    out = torch.empty(tokens, groups, values.shape[1], dtype=x.dtype, device=x.device)
    torch.bmm(x.transpose(0, 1), values.transpose(1, 2), out=out.transpose(0, 1))
    y = out.view(tokens, -1)
    return y if dialect is None else quantize_act(y, dialect)
