"""Inputs for hyper_expand: a comb that is not symmetric, strided coefficients, NaN in one token."""

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
        y = normal(generator, tokens, width, device=device, dtype=dtype)
        post = uniform(generator, tokens, 2 * count, device=device)[:, count:] * 2
        comb = uniform(generator, tokens, count * count + 1, device=device)[:, :-1]
        comb = comb.view(tokens, count, count)
        if hostile != "strided":
            post, comb = post.contiguous(), comb.contiguous()
        if hostile == "permutation":
            comb[:] = torch.eye(count, device=device).roll(1, 1)
            post.zero_()
        elif hostile == "zero":
            streams[0], y[1] = 0, 0
        elif hostile == "nan":
            streams[0, 0, 0], y[1, 1] = float("nan"), float("nan")
        return {"y": y, "streams": streams, "post": post, "comb": comb}

    return build


CASES = (
    Case("empty", make(0, 64)),
    Case("one", make(1, 256)),
    Case("ragged", make(5, 96)),
    Case("tall", make(67, 64)),
    Case("flash", make(3, 4096), small=False),
    Case("two_streams", make(3, 64, count=2)),
    Case("strided", make(5, 64, "strided")),
    Case("permutation", make(3, 64, "permutation")),
    Case("zero", make(3, 64, "zero")),
    Case("nan_in", make(3, 64, "nan")),
    Case("exact", make(5, 256, dtype=FP32)),
)
