"""Inputs for rms_norm: ragged rows, a zero row, wide ranges, a strided input, NaN in one row."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal, uniform

BF16, FP32 = torch.bfloat16, torch.float32


def make(tokens: int, width: int, hostile: str = "", *, dtype: torch.dtype = BF16) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = normal(generator, tokens, 2 * width, device=device, dtype=dtype)
        x = x[:, width:] if hostile == "strided" else x[:, :width].contiguous()
        if hostile == "zero":
            x[0] = 0
        elif hostile == "range":  # norms from below eps to far above it
            x *= torch.logspace(-6, 6, tokens, device=device).to(dtype).unsqueeze(1)
        elif hostile == "nan":
            x[0, 0] = float("nan")
        weight = (uniform(generator, width, device=device) + 0.5).to(dtype)
        return {"x": x, "weight": weight, "eps": 1e-6}

    return build


CASES = (
    Case("empty", make(0, 128)),
    Case("one", make(1, 256)),
    Case("ragged", make(5, 192)),
    Case("tall", make(67, 128)),
    Case("flash", make(3, 4096), small=False),
    Case("strided", make(5, 128, "strided")),
    Case("zero_row", make(3, 128, "zero")),
    Case("range", make(13, 128, "range")),
    Case("nan_in", make(3, 128, "nan")),
    Case("exact", make(5, 256, dtype=FP32)),
)
