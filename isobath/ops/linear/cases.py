"""Inputs for linear: one output row, ragged vocabularies, both dtypes, NaN in one row."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal

BF16, FP32 = torch.bfloat16, torch.float32


def make(
    tokens: int,
    n: int,
    k: int,
    hostile: str = "",
    *,
    dtype: torch.dtype = BF16,
    weight_dtype: torch.dtype | None = None,
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = normal(generator, tokens, k, device=device, dtype=dtype)
        weight = normal(generator, n, k, device=device, dtype=weight_dtype or dtype, std=k**-0.5)
        if hostile == "zero":
            x[0] = 0
        elif hostile == "nan":
            x[0, 0] = float("nan")
        return {"x": x, "weight": weight}

    return build


CASES = (
    Case("empty", make(0, 16, 128)),
    Case("one", make(1, 16, 256)),
    Case("one_output", make(3, 1, 128)),
    Case("ragged", make(5, 333, 192)),
    Case("tall", make(67, 64, 256)),
    Case("zero_row", make(3, 16, 128, "zero")),
    Case("nan_in", make(3, 16, 128, "nan")),
    Case("mixed", make(5, 64, 128, weight_dtype=FP32)),
    Case("exact", make(5, 64, 256, dtype=FP32)),
    Case("decode", make(8, 2624, 4096), small=False, large=True),
    Case("prefill", make(1024, 2624, 4096), small=False, large=True),
)
