"""Inputs for index_query: packed and plain, real and small heads, hostile heads."""

import torch

from isobath.cache.layout import index_row
from isobath.numerics.dialect import OCP, Dialect
from isobath.ops.contract import Arguments, Case, Make


def make(
    tokens: int,
    heads: int,
    width: int = 128,
    rope: int = 64,
    *,
    plain: bool = False,
    hostile: str = "",
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        q = torch.randn(tokens, heads, width, generator=generator)
        angle = torch.rand(tokens, rope // 2, generator=generator) * 1000
        if hostile == "zero":
            q[:, 0] = 0
        elif hostile == "edge":  # in the part that does not turn
            q.clamp_(-1, 1)
            q[0, :, 0] = OCP.quant_max * 2.0**-8
            q[1, :, 0] = torch.nextafter(torch.tensor(OCP.quant_max * 2.0**3), torch.tensor(1e9))
        elif hostile == "nan":
            q[0, 0, 3] = torch.nan
        dtype = torch.float32 if plain or hostile == "edge" else torch.bfloat16
        return {
            "q": q.to(device, dtype),
            "cos_sin": torch.cat((angle.cos(), angle.sin()), 1).to(device),
            "weights": torch.randn(tokens, heads, generator=generator).to(device),
            "layout": index_row(width, plain=plain),
            "dialect": dialect,
        }

    return build


CASES = (
    Case("empty", make(0, 16)),
    Case("one", make(1, 16)),
    Case("ragged", make(5, 3)),
    Case("real_heads", make(3, 64)),
    Case("tall", make(131, 16)),
    Case("small", make(7, 2, 32, 16)),
    Case("plain", make(5, 16, plain=True)),
    Case("plain_small", make(3, 2, 32, 16, plain=True)),
    Case("zero_head", make(3, 4, hostile="zero")),
    Case("amax_edge", make(2, 4, hostile="edge")),
    Case("nan_in", make(2, 4, hostile="nan")),
)
