"""Inputs for attention_in: those of its parts, of the same rows; ragged tiles on either side."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import round_fp8


def make(tokens: int, n: int, m: int, k: int, hostile: str = "") -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = torch.randn(tokens, k, generator=generator)
        weight = torch.randn(n, k, generator=generator) * k**-0.5
        plain_weight = torch.randn(m, k, generator=generator) * k**-0.5
        if hostile == "zero_block":
            x[:, :128], weight[:128] = 0, 0
        elif hostile == "nan":
            x[0, 0] = float("nan")
        return {
            "x": round_fp8(x.to(device), dialect, ACTIVATION_BLOCK),
            "plain": x.bfloat16().to(device),
            "weight": round_fp8(weight.to(device), dialect, WEIGHT_BLOCK),
            "plain_weight": plain_weight.bfloat16().to(device),
        }

    return build


CASES = (
    Case("empty", make(0, 128, 64, 128)),
    Case("one", make(1, 256, 64, 256)),
    Case("ragged", make(5, 384, 96, 256)),
    Case("ragged_rows", make(3, 200, 333, 128)),
    Case("tall", make(67, 128, 128, 1024)),
    Case("long", make(3, 128, 64, 2048)),
    Case("zero_block", make(3, 256, 64, 256, "zero_block")),
    Case("nan_in", make(3, 128, 64, 256, "nan")),
    Case("decode", make(8, 1536, 2624, 4096), small=False, large=True),
    Case("prefill", make(1024, 1536, 2624, 4096), small=False, large=True),
)
