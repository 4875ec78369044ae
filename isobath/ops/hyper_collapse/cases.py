"""Inputs for hyper_collapse: coefficients as hyper_mix lays them out, zeros, NaN in one token."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal, uniform

BF16, FP32 = torch.bfloat16, torch.float32


def make(
    tokens: int,
    width: int,
    hostile: str = "",
    *,
    count: int = 4,
    dtype: torch.dtype = BF16,
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        streams = normal(generator, tokens, count, width, device=device, dtype=dtype)
        pre = uniform(generator, tokens, 2 * count, device=device)
        pre = pre[:, :count] if hostile == "strided" else pre[:, :count].contiguous()
        weight = (uniform(generator, width, device=device) + 0.5).to(dtype)
        if hostile == "zero":
            streams[0], pre[1] = 0, 0
        elif hostile == "nan":
            streams[0, 0, 0] = float("nan")
        return {"streams": streams, "pre": pre, "norm_weight": weight, "eps": 1e-6}

    return build


CASES = (
    Case("empty", make(0, 64)),
    Case("one", make(1, 256)),
    Case("ragged", make(5, 96)),
    Case("tall", make(67, 64)),
    Case("flash", make(3, 4096), small=False),
    Case("two_streams", make(3, 64, count=2)),
    Case("strided", make(5, 64, "strided")),
    Case("zero", make(3, 64, "zero")),
    Case("nan_in", make(3, 64, "nan")),
    Case("exact", make(5, 256, dtype=FP32)),
)
