"""Inputs for quantize_act: every place where a scale or a code is about to change."""

import torch

from isobath.numerics.dialect import OCP, Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal

BF16, FP32 = torch.bfloat16, torch.float32


def make(tokens: int, width: int, hostile: str = "", *, dtype: torch.dtype = BF16) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = normal(generator, tokens, width, device=device, dtype=dtype)
        if hostile == "zero_block":
            x[:, :128] = 0
        elif hostile == "nan":
            x[0, 0] = float("nan")
        elif hostile == "infinite":
            x[0, 0], x[1, 1] = float("inf"), float("-inf")
        return {"x": x, "dialect": dialect}

    return build


def make_amax_edges(dtype: torch.dtype) -> Make:
    """Rows whose amax is 448 * 2**k, or one ulp of dtype below or above it, k from -24 to 24."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        edges = OCP.quant_max * 2.0 ** torch.arange(-24, 25)
        integer = torch.int16 if dtype == BF16 else torch.int32
        bits = edges.to(dtype).view(integer)
        amax = torch.cat([bits - 1, bits, bits + 1]).view(dtype).float()
        x = torch.rand(len(amax), 128, generator=generator) * 1.9 - 0.95
        x = x * amax.unsqueeze(1)
        x[:, 5] = amax * torch.where(torch.arange(len(amax)) % 2 == 0, 1.0, -1.0)
        return {"x": x.to(device, dtype), "dialect": dialect}

    return build


def make_code_ties(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
    """Every midpoint between neighbouring codes at scale 1, subnormal codes included."""
    codes = torch.arange(127).to(torch.uint8).view(torch.float8_e4m3fn).float()
    midpoints = (codes[1:] + codes[:-1]) / 2
    x = torch.zeros(2, 128)
    x[:, : len(midpoints)] = midpoints
    x[:, -1] = OCP.quant_max  # fixes the scale
    return {"x": (x * torch.tensor([[1.0], [-1.0]])).to(device), "dialect": dialect}


def make_extremes(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
    """amax below the floor, at it, subnormal, and the largest finite float32."""
    amax = torch.tensor([1e-5, 1e-4, 2.0**-140, torch.finfo(FP32).max, 3.0e38])
    x = torch.rand(len(amax), 128, generator=generator) * amax.unsqueeze(1)
    x[:, 0] = amax
    return {"x": x.to(device), "dialect": dialect}


CASES = (
    Case("empty", make(0, 128)),
    Case("one", make(1, 256)),
    Case("ragged", make(5, 384)),
    Case("tall", make(67, 128)),
    Case("zero_block", make(3, 256, "zero_block")),
    Case("amax_edges_bf16", make_amax_edges(BF16)),
    Case("amax_edges_fp32", make_amax_edges(FP32)),
    Case("code_ties", make_code_ties),
    Case("extremes", make_extremes),
    Case("nan_in", make(3, 256, "nan")),
    Case("infinity_in", make(3, 256, "infinite")),
    Case("fp32", make(5, 256, dtype=FP32)),
)
