"""grouped_project through cuBLAS: weights decoded to bf16 once at load, one batched product.

Two launches, for the library's large tiles, and three bytes a weight: few tokens, and operands in
fp32, go to the Triton kernel and the weights as they came. A row's last bits may then depend on how
many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.grouped_project.triton_kernel import grouped_project as few
from isobath.ops.libraries import require_cuda
from isobath.ops.quantize_act.triton_kernel import quantize_act
from isobath.target import detect

require_cuda("grouped_project/cublas", detect())

MANY_TOKENS = 32
"""From this many on the library was the faster at V4-Flash's shape: H200, 2026-11-22, one run at 8,
64, 256 and 1,024 tokens against tiles of 128 weight rows; 32 itself was not measured."""


@dataclass(frozen=True, slots=True)
class Widened:
    """values: [G, R, K], FP8 as bf16, which holds its values exactly; plain weights as they are.
    given: the weight as it came."""

    values: torch.Tensor
    given: Fp8Tensor | torch.Tensor


def prepare(weight: Fp8Tensor | torch.Tensor) -> Widened:
    if not isinstance(weight, Fp8Tensor):
        return Widened(weight, weight)
    groups = [dequantize(_group(weight, g)).to(torch.bfloat16) for g in range(len(weight.data))]
    return Widened(torch.stack(groups), weight)  # one by one: fp32 of all is four times the bytes


def grouped_project(
    x: torch.Tensor, weight: Widened, *, dialect: Dialect | None
) -> Fp8Tensor | torch.Tensor:
    tokens, groups, _ = x.shape
    values = weight.values
    if tokens < MANY_TOKENS or torch.promote_types(x.dtype, values.dtype) != torch.bfloat16:
        return few(x, weight.given, dialect=dialect)
    out = torch.empty(tokens, groups, values.shape[1], dtype=x.dtype, device=x.device)
    torch.bmm(x.transpose(0, 1), values.transpose(1, 2), out=out.transpose(0, 1))
    y = out.view(tokens, -1)
    return y if dialect is None else quantize_act(y, dialect)


def _group(weight: Fp8Tensor, g: int) -> Fp8Tensor:
    return Fp8Tensor(weight.data[g], weight.scale[g], weight.dialect, weight.quant_block)
