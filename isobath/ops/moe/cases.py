"""Inputs for moe: learned and hash routing, padding lanes, few and many tokens, hostile blocks."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.experts import ExpertWeights
from isobath.ops.operands import normal, round_fp8, round_mxfp4, unrounded

VOCAB = 11


def make(
    tokens: int,
    num_experts: int,
    k: int,
    hostile: str = "",
    *,
    width: int = 256,
    inner: int = 128,
    hashed: bool = False,
    exact: bool = False,
) -> Make:
    """width: D. inner: I, of the routed experts and of the shared one."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = normal(generator, tokens, width, device=device, dtype=torch.bfloat16)
        gate = normal(generator, num_experts, width, device=device, std=3 * width**-0.5)
        w13 = normal(generator, num_experts, 2 * inner, width, device=device, std=width**-0.5)
        w2 = normal(generator, num_experts, width, inner, device=device, std=inner**-0.5)
        shared_w13 = normal(generator, 2 * inner, width, device=device, std=width**-0.5)
        shared_w2 = normal(generator, width, inner, device=device, std=inner**-0.5)
        ids = torch.randint(0, VOCAB, (tokens,), generator=generator).to(device)
        if hostile == "padding":  # poisoned lanes, the first and the last
            ids[0], ids[-1] = -1, -1
            x[0], x[-1] = float("nan"), float("inf")
        elif hostile == "nan":
            x[0, 1] = float("nan")
        elif hostile == "one_expert":  # the same choice for all, others stay empty
            gate.zero_()
        elif hostile == "zero_block":
            x[:, :128], w13[0, :32], shared_w13[:128] = 0, 0, 0
        bias, order = torch.rand(num_experts, generator=generator), []
        order = [torch.randperm(num_experts, generator=generator)[:k] for _ in range(VOCAB)]
        args: Arguments = {
            "x": x.float() if exact else x,
            "quantized": x.float(),
            "token_ids": ids,
            "gate": gate if exact else gate.bfloat16(),
            "expert_weights": ExpertWeights(w13, w2),
            "shared_w13": shared_w13,
            "shared_w2": shared_w2,
            "bias": None if hashed else (8 + bias).to(device),
            "table": torch.stack(order).to(device) if hashed else None,
            "k": k,
            "scale": 1.5,
            "limit": 10.0,
        }
        if not exact:
            args["quantized"] = round_fp8(x, dialect, ACTIVATION_BLOCK)
            args["expert_weights"] = ExpertWeights(round_mxfp4(w13), round_mxfp4(w2))
            args["shared_w13"] = round_fp8(shared_w13, dialect, WEIGHT_BLOCK)
            args["shared_w2"] = round_fp8(shared_w2, dialect, WEIGHT_BLOCK)
        return args

    return build


CASES = (
    Case("empty", make(0, 16, 4), unrounded=unrounded),
    Case("one", make(1, 16, 4), unrounded=unrounded),
    Case("ragged", make(5, 13, 3), unrounded=unrounded),
    Case("tall", make(67, 4, 2), unrounded=unrounded),
    Case("wide", make(3, 8, 2, width=512, inner=384), unrounded=unrounded),
    Case("hash_one", make(1, 16, 4, hashed=True), unrounded=unrounded),
    Case("hash_ragged", make(13, 16, 6, hashed=True), unrounded=unrounded),
    Case("padding", make(5, 16, 4, "padding"), unrounded=unrounded),
    Case("hash_padding", make(5, 16, 4, "padding", hashed=True), unrounded=unrounded),
    Case("one_expert", make(5, 16, 2, "one_expert"), unrounded=unrounded),
    Case("zero_block", make(3, 4, 2, "zero_block"), unrounded=unrounded),
    Case("nan_in", make(3, 4, 2, "nan"), unrounded=unrounded),
    Case("exact", make(5, 16, 4, exact=True)),
    Case("exact_padding", make(5, 16, 4, "padding", exact=True)),
    # Hashed, so that no near tie of two experts decides over their agreement.
    Case("decode", make(8, 8, 6, width=4096, inner=2048, hashed=True), small=False, large=True),
    Case("many", make(160, 8, 6, width=4096, inner=512, hashed=True), small=False, large=True),
)
