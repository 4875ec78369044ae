"""Inputs for window_insert: rows scattered over a poisoned cache, padding, hostile blocks."""

import torch

from isobath.cache.layout import kv_row
from isobath.cache.view import allocate
from isobath.numerics.dialect import OCP, Dialect
from isobath.ops.contract import Arguments, Case, Make


def make(
    tokens: int,
    width: int = 512,
    rope: int = 64,
    *,
    plain: bool = False,
    padded: int = 0,
    hostile: str = "",
) -> Make:
    """padded: how many of the tokens have slot -1."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        kv = torch.randn(tokens, width, generator=generator)
        weight = 1 + 0.1 * torch.randn(width, generator=generator)
        angle = torch.rand(tokens, rope // 2, generator=generator) * 1000
        if hostile == "edge":  # a row of equal values is its own norm: amax is the weight's
            kv[:] = 1
            weight[:] = 1
            weight[0] = OCP.quant_max * 2.0**-6
            weight[64] = torch.nextafter(torch.tensor(OCP.quant_max * 2.0**-6), torch.tensor(8.0))
        elif hostile == "zero":
            kv[:, :64] = 0
            kv[0] = 0
        elif hostile == "nan":
            kv[0, 3] = torch.nan
        rows = tokens + 9
        slots = torch.randperm(rows - 1, generator=generator)[:tokens] + 1
        slots[:padded] = -1
        dtype = torch.float32 if plain or hostile == "edge" else torch.bfloat16
        return {
            "kv": kv.to(device, dtype),
            "norm_weight": weight.to(device, dtype),
            "cos_sin": torch.cat((angle.cos(), angle.sin()), 1).to(device),
            "cache": allocate(rows, kv_row(width, rope, plain=plain), dialect, device),
            "slots": slots.to(device),
            "eps": 1e-6,
        }

    return build


CASES = (
    Case("empty", make(0)),
    Case("one", make(1)),
    Case("ragged", make(7)),
    Case("tall", make(131)),
    Case("small", make(5, 64, 16)),
    Case("plain", make(5, plain=True)),
    Case("plain_small", make(3, 64, 16, plain=True)),
    Case("padded", make(6, padded=3)),
    Case("all_padding", make(3, padded=3)),
    Case("plain_padded", make(6, plain=True, padded=2)),
    Case("zero_block", make(3, hostile="zero")),
    Case("amax_edge", make(3, hostile="edge")),
    Case("nan_in", make(3, hostile="nan")),
    Case("far", make(7, padded=1), far=True),
)
