"""shared_expert in plain terms: the references of its parts, one after the other."""

import torch

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.fp8_linear.reference import fp8_linear
from isobath.ops.linear.reference import linear
from isobath.ops.quantize_act.reference import quantize_act
from isobath.ops.swiglu.reference import swiglu


def shared_expert(
    x: Fp8Tensor | torch.Tensor,
    w13: Fp8Tensor | torch.Tensor,
    w2: Fp8Tensor | torch.Tensor,
    *,
    limit: float,
) -> torch.Tensor:
    if isinstance(x, Fp8Tensor):
        gate, up = fp8_linear(x, w13).chunk(2, dim=1)
        return fp8_linear(quantize_act(swiglu(gate, up, limit=limit), x.dialect), w2)
    assert isinstance(w13, torch.Tensor) and isinstance(w2, torch.Tensor)
    gate, up = linear(x, w13).chunk(2, dim=1)
    return linear(swiglu(gate, up, limit=limit), w2)
