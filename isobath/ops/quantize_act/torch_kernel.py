"""quantize_act on a CPU: exponent-bit arithmetic on int32 views, see ops/torch_fp8.py."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.torch_fp8 import quantize_rows


def quantize_act(x: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
    return quantize_rows(x, dialect)
