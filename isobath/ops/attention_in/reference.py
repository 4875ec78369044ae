"""attention_in in plain terms: the references of its parts."""

import torch

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.fp8_linear.reference import fp8_linear
from isobath.ops.linear.reference import linear


def attention_in(
    x: Fp8Tensor, plain: torch.Tensor, weight: Fp8Tensor, plain_weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return fp8_linear(x, weight), linear(plain, plain_weight)
