"""Inputs for swiglu: clamps binding on every side, gate and up as halves of one matrix, NaN."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal

BF16, FP32 = torch.bfloat16, torch.float32


def make(
    tokens: int, width: int, hostile: str = "", *, dtype: torch.dtype = BF16, std: float = 1.0
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        both = normal(generator, tokens, 2 * width, device=device, dtype=dtype, std=std)
        gate, up = both.chunk(2, -1)
        if hostile == "zero":
            gate[0], up[1] = 0, 0
        elif hostile == "limits":  # at and beyond each clamp
            gate[:, :6] = torch.tensor([9.9375, 10.0, 10.0625, 300.0, -10.0, -300.0]).to(both)
            up[:, :6] = torch.tensor([10.0, -10.0, 300.0, -300.0, 10.0625, 9.9375]).to(both)
        elif hostile == "closed":  # the gate has no lower clamp: silu(-12) is not silu(-10)
            gate.sub_(gate.abs() + 12)
        elif hostile == "nan":
            gate[0, 0], up[1, 1] = float("nan"), float("nan")
        if hostile != "strided":
            gate, up = gate.contiguous(), up.contiguous()
        return {"gate": gate, "up": up, "limit": 10.0}

    return build


CASES = (
    Case("empty", make(0, 128)),
    Case("one", make(1, 128)),
    Case("ragged", make(5, 96)),
    Case("tall", make(67, 128)),
    Case("odd_width", make(7, 101)),
    Case("strided", make(5, 128, "strided")),
    Case("zero", make(3, 128, "zero")),
    Case("limits", make(3, 128, "limits", std=8.0)),
    Case("closed", make(3, 128, "closed")),
    Case("nan_in", make(3, 128, "nan")),
    Case("exact", make(5, 128, dtype=FP32, std=4.0)),
)
