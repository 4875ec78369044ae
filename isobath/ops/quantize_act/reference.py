"""quantize_act in plain terms: the quantisation rule of numerics, in groups of 128."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor, quantize


def quantize_act(x: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
    return quantize(x, dialect, ACTIVATION_BLOCK)
