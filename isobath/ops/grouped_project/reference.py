"""grouped_project in plain terms: the references of its two parts."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.grouped_linear.reference import grouped_linear
from isobath.ops.quantize_act.reference import quantize_act


def grouped_project(
    x: torch.Tensor, weight: Fp8Tensor | torch.Tensor, *, dialect: Dialect | None
) -> Fp8Tensor | torch.Tensor:
    y = grouped_linear(x, weight)
    return y if dialect is None else quantize_act(y, dialect)
