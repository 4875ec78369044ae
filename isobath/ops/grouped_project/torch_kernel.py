"""grouped_project on a CPU: the kernels of its two parts, weights as grouped_linear packs them."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.grouped_linear.torch_kernel import grouped_linear
from isobath.ops.grouped_linear.torch_kernel import prepare as prepare
from isobath.ops.quantize_act.torch_kernel import quantize_act


def grouped_project(
    x: torch.Tensor, weight: tuple[torch.Tensor, ...], *, dialect: Dialect | None
) -> Fp8Tensor | torch.Tensor:
    y = grouped_linear(x, weight)
    return y if dialect is None else quantize_act(y, dialect)
