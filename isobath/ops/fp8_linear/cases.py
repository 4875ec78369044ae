"""Inputs for fp8_linear: skinny and tall, ragged tiles, hostile blocks."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK, quantize
from isobath.ops.contract import Arguments, Case, Make


def make(tokens: int, n: int, k: int, hostile: str = "") -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = torch.randn(tokens, k, generator=generator)
        weight = torch.randn(n, k, generator=generator) * k**-0.5
        if hostile == "zero_block":
            x[:, :128] = 0
            weight[:128] = 0
        elif hostile == "edge":  # amax exactly at, and one ulp above, what a scale of 1 can hold
            edge = torch.tensor(dialect.quant_max)
            x[:, 0] = edge
            x[0, 0] = torch.nextafter(edge, 2 * edge)
        elif hostile == "nan":
            x[0, 0] = float("nan")
        quantized = quantize(x.to(device), dialect, ACTIVATION_BLOCK)
        return {"x": quantized, "weight": quantize(weight.to(device), dialect, WEIGHT_BLOCK)}

    return build


CASES = (
    Case("empty", make(0, 128, 128)),
    Case("one", make(1, 256, 256)),
    Case("ragged", make(5, 384, 256)),
    Case("tall", make(67, 128, 1024)),
    Case("zero_block", make(3, 256, 256, "zero_block")),
    Case("amax_edge", make(3, 128, 128, "edge")),
    Case("nan_in", make(3, 128, 256, "nan")),
)
