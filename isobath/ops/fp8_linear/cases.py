"""Inputs for fp8_linear: skinny and tall, ragged tiles, hostile blocks."""

import torch

from isobath.numerics.dialect import OCP, Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import round_fp8, unrounded


def make(tokens: int, n: int, k: int, hostile: str = "") -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = torch.randn(tokens, k, generator=generator)
        weight = torch.randn(n, k, generator=generator) * k**-0.5
        if hostile == "zero_block":
            x[:, :128] = 0
            weight[:128] = 0
        elif hostile == "edge":  # amax exactly at, and one ulp above, a power of two times 448
            x[:, 0] = OCP.quant_max
            x[0, 0] = torch.nextafter(x[0, 0], torch.tensor(torch.inf))
        elif hostile == "nan":
            x[0, 0] = float("nan")
        quantized = round_fp8(x.to(device), dialect, ACTIVATION_BLOCK)
        return {"x": quantized, "weight": round_fp8(weight.to(device), dialect, WEIGHT_BLOCK)}

    return build


CASES = (
    Case("empty", make(0, 128, 128), unrounded=unrounded),
    Case("one", make(1, 256, 256), unrounded=unrounded),
    Case("ragged", make(5, 384, 256), unrounded=unrounded),
    Case("tall", make(67, 128, 1024), unrounded=unrounded),
    Case("many", make(260, 200, 256), unrounded=unrounded),
    Case("ragged_rows", make(3, 200, 128), unrounded=unrounded),
    Case("zero_block", make(3, 256, 256, "zero_block"), unrounded=unrounded),
    Case("amax_edge", make(3, 128, 128, "edge"), unrounded=unrounded),
    Case("nan_in", make(3, 128, 256, "nan"), unrounded=unrounded),
    Case("decode", make(8, 1536, 4096), small=False, large=True),
    Case("prefill", make(1024, 4096, 8192), small=False, large=True),
)
