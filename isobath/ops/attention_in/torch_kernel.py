"""attention_in on a CPU: the CPU kernels of its parts."""

import torch

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.fp8_linear import torch_kernel as fp8
from isobath.ops.fp8_linear.torch_kernel import Widened
from isobath.ops.linear import torch_kernel as unquantised


def prepare(weight: Fp8Tensor | torch.Tensor) -> Widened | torch.Tensor:
    """As fp8_linear prepares an FP8 matrix, as linear prepares a plain one."""
    return fp8.prepare(weight) if isinstance(weight, Fp8Tensor) else unquantised.prepare(weight)


def attention_in(
    x: Fp8Tensor, plain: torch.Tensor, weight: Widened, plain_weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return fp8.fp8_linear(x, weight), unquantised.linear(plain, plain_weight)
