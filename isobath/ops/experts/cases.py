"""Inputs for experts: padding slots and tokens, experts nobody or everybody chose, hostile blocks.

The batch sizes fall on both sides of every threshold at which a backend changes its way of
multiplying. The exact cases have plain float32 weights and activations. Batches of one and of odd
size come with a shared expert's output, the others without.
"""

import torch

from isobath.numerics.dialect import OCP, Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK
from isobath.numerics.mxfp4 import Mxfp4Tensor, pack, unpack
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.experts import ExpertWeights
from isobath.ops.operands import normal, round_fp8, round_mxfp4, uniform, unrounded


def make(
    tokens: int,
    num_experts: int,
    k: int,
    hostile: str = "",
    *,
    width: int = 256,
    inner: int = 128,
    exact: bool = False,
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = normal(generator, tokens, width, device=device, dtype=torch.bfloat16).float()
        w13 = normal(generator, num_experts, 2 * inner, width, device=device, std=width**-0.5)
        w2 = normal(generator, num_experts, width, inner, device=device, std=inner**-0.5)
        chosen = torch.rand(tokens, num_experts, generator=generator).argsort(-1)[:, :k].to(device)
        if hostile == "padding":  # a slot here and there, one whole token, poisoned weights
            chosen[0, -1], chosen[1] = -1, -1
            x[1] = float("nan")
        elif hostile == "one_expert":
            chosen[:, 0], chosen[:, 1:] = num_experts - 1, -1
        elif hostile == "zero_block":
            x[:, :128], w13[0, :32], w2[:, :, :32] = 0, 0, 0
        elif hostile == "amax_edge":
            x[:, 0] = OCP.quant_max
            x[0, 0] = OCP.quant_max + 2
        elif hostile == "limits":
            w13 *= 30
        elif hostile == "closed":  # gates near -15: they have no lower clamp
            x.abs_(), w13[:, :inner].abs_().mul_(-1.5)
        elif hostile == "nan":
            x[0, 0] = float("nan")
        weights = uniform(generator, tokens, k, device=device) + 0.1
        matrices = ExpertWeights(w13, w2)
        if not exact:
            matrices = _rounded(w13, w2, hostile)
        shared = normal(generator, tokens, width, device=device)
        return {
            "x": x if exact else round_fp8(x, dialect, ACTIVATION_BLOCK),
            "experts": chosen,
            "weights": weights,
            "expert_weights": matrices,
            "shared": (shared if exact else shared.bfloat16()) if tokens % 2 else None,
            "limit": 10.0,
        }

    return build


def _rounded(w13: torch.Tensor, w2: torch.Tensor, hostile: str) -> ExpertWeights:
    up, down = round_mxfp4(w13), round_mxfp4(w2)
    if hostile == "negative_zero":  # code 8, NaN for a kernel that widens it to FNUZ
        return ExpertWeights(_with_negative_zeros(up), _with_negative_zeros(down))
    if hostile == "scale_spread":  # no FP8 byte holds both ends of 16 binades of group scales
        up.scale[..., 0::2] -= 16
    return ExpertWeights(up, down)


def _with_negative_zeros(weight: Mxfp4Tensor) -> Mxfp4Tensor:
    """Every zero of `weight` written as -0."""
    codes = unpack(weight.packed)
    return Mxfp4Tensor(pack(torch.where(codes == 0, 8, codes)), weight.scale)


CASES = (
    Case("empty", make(0, 4, 2), unrounded=unrounded),
    Case("one", make(1, 4, 2), unrounded=unrounded),
    Case("two", make(2, 16, 4), unrounded=unrounded),
    Case("ragged", make(5, 5, 3), unrounded=unrounded),
    Case("tall", make(67, 4, 2), unrounded=unrounded),
    Case("many_experts", make(3, 24, 2), unrounded=unrounded),
    Case("two_blocks", make(3, 4, 2, width=384, inner=256), unrounded=unrounded),
    Case("padding", make(2, 16, 2, "padding"), unrounded=unrounded),
    Case("padding_ragged", make(5, 4, 2, "padding"), unrounded=unrounded),
    Case("padding_tall", make(67, 4, 2, "padding"), unrounded=unrounded),
    Case("one_expert", make(5, 4, 2, "one_expert"), unrounded=unrounded),
    Case("one_expert_tall", make(67, 4, 2, "one_expert"), unrounded=unrounded),
    Case("zero_block", make(3, 4, 2, "zero_block"), unrounded=unrounded),
    Case("amax_edge", make(3, 4, 2, "amax_edge"), unrounded=unrounded),
    Case("limits", make(3, 4, 2, "limits"), unrounded=unrounded),
    Case("closed", make(3, 4, 2, "closed"), unrounded=unrounded),
    Case("nan_in", make(3, 4, 2, "nan"), unrounded=unrounded),
    Case("negative_zero", make(3, 4, 2, "negative_zero")),
    Case("scale_spread", make(4, 4, 2, "scale_spread")),
    Case("exact_empty", make(0, 4, 2, exact=True)),
    Case("exact_one", make(1, 4, 2, exact=True)),
    Case("exact_many_experts", make(2, 16, 2, exact=True)),
    Case("exact_ragged", make(5, 4, 2, exact=True)),
    Case("exact_tall", make(67, 4, 2, exact=True)),
    Case("full_width", make(80, 2, 2, width=4096, inner=512), small=False, large=True),
    Case("full_width_tall", make(160, 2, 2, width=4096, inner=512), small=False, large=True),
)
