"""Inputs for grouped_linear: FP8 and plain weights, one group and many, NaN in one group."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import WEIGHT_BLOCK
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal, round_fp8, unrounded

BF16, FP32 = torch.bfloat16, torch.float32


def make(
    tokens: int,
    groups: int,
    rank: int,
    width: int,
    hostile: str = "",
    *,
    dtype: torch.dtype = BF16,
    plain: bool = False,
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = normal(generator, tokens, groups, width, device=device, dtype=dtype)
        weight = normal(generator, groups, rank, width, device=device, std=width**-0.5)
        if hostile == "zero_block":
            weight[0, :128] = 0
        elif hostile == "nan":
            x[0, 0, 0] = float("nan")
        return {"x": x, "weight": weight if plain else round_fp8(weight, dialect, WEIGHT_BLOCK)}

    return build


CASES = (
    Case("empty", make(0, 2, 128, 128), unrounded=unrounded),
    Case("one", make(1, 4, 64, 256), unrounded=unrounded),
    Case("one_group", make(3, 1, 128, 128), unrounded=unrounded),
    Case("ragged", make(5, 3, 96, 128), unrounded=unrounded),
    Case("tall", make(67, 2, 64, 128), unrounded=unrounded),
    Case("zero_block", make(3, 2, 128, 128, "zero_block"), unrounded=unrounded),
    Case("nan_in", make(3, 2, 64, 128, "nan"), unrounded=unrounded),
    Case("plain", make(5, 2, 64, 128, plain=True)),
    Case("exact", make(5, 2, 64, 128, plain=True, dtype=FP32)),
    Case("decode", make(8, 8, 1024, 4096), small=False, large=True),
)
