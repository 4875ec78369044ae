"""Inputs for hyper_expand: a comb that is not symmetric, strided coefficients, NaN in one token."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.experts import Summands
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
        row = normal(generator, tokens, width, device=device, dtype=dtype)
        y: torch.Tensor | Summands = row
        post = uniform(generator, tokens, 2 * count, device=device)[:, count:] * 2
        comb = uniform(generator, tokens, count * count + 1, device=device)[:, :-1]
        comb = comb.view(tokens, count, count)
        if hostile != "strided":
            post, comb = post.contiguous(), comb.contiguous()
        if hostile == "permutation":
            comb[:] = torch.eye(count, device=device).roll(1, 1)
            post.zero_()
        elif hostile.startswith("summands"):
            y = _summands(generator, row, alone=hostile.endswith("alone"))
        elif hostile == "zero":
            streams[0], row[1] = 0, 0
        elif hostile == "nan":
            streams[0, 0, 0], row[1, 1] = float("nan"), float("nan")
        return {"y": y, "streams": streams, "post": post, "comb": comb}

    return build


def _summands(generator: torch.Generator, shared: torch.Tensor, *, alone: bool) -> Summands:
    """Of three slots, one of them empty here and there and all of them for token 1; never written
    rows are NaN. alone: no shared expert."""
    tokens, width = shared.shape
    products = normal(generator, tokens, 3, width, device=shared.device)
    experts = torch.randint(0, 7, (tokens, 3), generator=generator).to(shared.device)
    experts[0, 1], experts[-1, 2], experts[1:2] = -1, -1, -1
    products[experts < 0] = torch.nan
    products = products.to(shared.dtype)
    return Summands(products, experts, None if alone else shared, shared.dtype)


CASES = (
    Case("empty", make(0, 64)),
    Case("one", make(1, 256)),
    Case("ragged", make(5, 96)),
    Case("tall", make(67, 64)),
    Case("flash", make(3, 4096), small=False),
    Case("two_streams", make(3, 64, count=2)),
    Case("strided", make(5, 64, "strided")),
    Case("permutation", make(3, 64, "permutation")),
    Case("summands", make(5, 96, "summands")),
    Case("summands_tall", make(67, 64, "summands")),
    Case("summands_alone", make(3, 64, "summands_alone")),
    Case("summands_exact", make(5, 96, "summands", dtype=FP32)),
    Case("zero", make(3, 64, "zero")),
    Case("nan_in", make(3, 64, "nan")),
    Case("exact", make(5, 256, dtype=FP32)),
)
