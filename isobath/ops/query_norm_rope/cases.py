"""Inputs for query_norm_rope: both activation dtypes, real and small heads, hostile rows."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make


def make(
    tokens: int,
    heads: int,
    width: int = 512,
    rope: int = 64,
    dtype: torch.dtype = torch.bfloat16,
    hostile: str = "",
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        q = torch.randn(tokens, heads, width, generator=generator)
        angle = torch.rand(tokens, rope // 2, generator=generator) * 1000
        if hostile == "zero":
            q[0, 0] = 0
        elif hostile == "huge":  # a sum of 512 squares of 1e17 is within fp32's 3e38
            q[0, 0] *= 1e17
            q[1] *= 1e-18
        elif hostile == "nan":
            q[1, 0, 3] = torch.nan
        cos_sin = torch.cat((angle.cos(), angle.sin()), 1)
        return {"q": q.to(device, dtype), "cos_sin": cos_sin.to(device), "eps": 1e-6}

    return build


CASES = (
    Case("empty", make(0, 4)),
    Case("one", make(1, 4)),
    Case("ragged", make(5, 3)),
    Case("real_heads", make(3, 64)),
    Case("tall", make(131, 4)),
    Case("small", make(7, 2, 64, 16)),
    Case("fp32", make(5, 4, dtype=torch.float32)),
    Case("zero_head", make(2, 4, hostile="zero")),
    Case("extreme_sizes", make(3, 4, hostile="huge")),
    Case("nan_in", make(3, 4, hostile="nan")),
)
