"""Inputs for hyper_head: as hyper_mix, with the head's own small mixer."""

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
        fn = normal(generator, count, count * width, device=device, std=(count * width) ** -0.5)
        base = normal(generator, count, device=device)
        if hostile == "zero":
            streams[0] = 0
        elif hostile == "saturated":
            base *= 12
        elif hostile == "closed":  # pre is its epsilon alone
            base -= 30
        elif hostile == "nan":
            streams[0, 0, 0] = float("nan")
        return {
            "streams": streams,
            "fn": fn,
            "base": base,
            "scale": uniform(generator, 1, device=device) + 0.5,
            "norm_weight": (uniform(generator, width, device=device) + 0.5).to(dtype),
            "eps": 1e-6,
            "norm_eps": 1e-6,
        }

    return build


CASES = (
    Case("empty", make(0, 64)),
    Case("one", make(1, 256)),
    Case("ragged", make(5, 96)),
    Case("tall", make(67, 64)),
    Case("flash", make(3, 4096), small=False),
    Case("two_streams", make(3, 64, count=2)),
    Case("zero_token", make(3, 64, "zero")),
    Case("saturated", make(3, 64, "saturated")),
    Case("closed", make(3, 64, "closed")),
    Case("nan_in", make(3, 64, "nan")),
    Case("exact", make(5, 256, dtype=FP32)),
)
