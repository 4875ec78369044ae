"""shared_expert on a CPU: the CPU kernels of its parts, one after the other."""

import torch

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.fp8_linear import torch_kernel as fp8
from isobath.ops.fp8_linear.torch_kernel import Widened
from isobath.ops.linear import torch_kernel as plain
from isobath.ops.quantize_act.torch_kernel import quantize_act
from isobath.ops.swiglu.torch_kernel import swiglu


def prepare(weight: Fp8Tensor | torch.Tensor) -> Widened | torch.Tensor:
    """As fp8_linear prepares an FP8 matrix, as linear prepares a plain one."""
    return fp8.prepare(weight) if isinstance(weight, Fp8Tensor) else plain.prepare(weight)


def shared_expert(
    x: Fp8Tensor | torch.Tensor,
    w13: Widened | torch.Tensor,
    w2: Widened | torch.Tensor,
    *,
    limit: float,
) -> torch.Tensor:
    if isinstance(x, Fp8Tensor):
        assert isinstance(w13, Widened) and isinstance(w2, Widened), "x is quantised, a weight not"
        gate, up = fp8.fp8_linear(x, w13).chunk(2, dim=1)
        return fp8.fp8_linear(quantize_act(swiglu(gate, up, limit=limit), x.dialect), w2)
    assert isinstance(w13, torch.Tensor) and isinstance(w2, torch.Tensor), "a weight is quantised"
    gate, up = plain.linear(x, w13).chunk(2, dim=1)
    return plain.linear(swiglu(gate, up, limit=limit), w2)
