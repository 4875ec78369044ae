"""Inputs for hyper_mix: equal streams, saturated gates, a projection that converges slowly, NaN."""

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
    std: float = 1.0,
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        streams = normal(generator, tokens, count, width, device=device, dtype=dtype, std=std)
        rows = (2 + count) * count
        fn = normal(generator, rows, count * width, device=device, std=(count * width) ** -0.5)
        base = normal(generator, rows, device=device)
        scale = uniform(generator, 3, device=device) + 0.5
        if hostile == "zero":
            streams[0] = 0
        elif hostile == "equal_streams":  # as embed returns them
            streams = streams[:, :1].expand(-1, count, -1).contiguous()
        elif hostile == "ties":
            fn.zero_(), base.zero_()
        elif hostile == "saturated":  # gates near 0 and 1, a comb that is all but a permutation
            base *= 12
        elif hostile == "closed":  # every gate is all but 0, and pre is its epsilon
            base -= 30
        elif hostile == "nan":
            streams[0, 0, 0] = float("nan")
        return {
            "streams": streams,
            "fn": fn,
            "base": base,
            "scale": scale,
            "iters": 20,
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
    Case("equal_streams", make(3, 64, "equal_streams")),
    Case("ties", make(3, 64, "ties")),
    Case("saturated", make(5, 64, "saturated")),
    Case("closed", make(5, 64, "closed")),
    Case("quiet", make(5, 64, std=1e-3)),
    Case("nan_in", make(3, 64, "nan")),
    Case("exact", make(5, 256, dtype=FP32)),
)
