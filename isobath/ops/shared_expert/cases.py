"""Inputs for shared_expert: ragged tiles, binding clamps, a closed gate, hostile blocks, NaN."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import round_fp8, unrounded


def make(
    tokens: int, width: int, hidden: int, hostile: str = "", *, plain: bool = False, std: float = 1
) -> Make:
    """width: D. hidden: I. std: of the input; 8 drives gate and up into their clamps."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = torch.randn(tokens, width, generator=generator) * std
        w13 = torch.randn(2 * hidden, width, generator=generator) * width**-0.5
        w2 = torch.randn(width, hidden, generator=generator) * hidden**-0.5
        if hostile == "zero_block":
            x[:, :128] = 0
            w13[hidden : hidden + 128] = 0  # the first 128 hidden values are zero
        elif hostile == "closed":  # the gate has no lower clamp: silu(-12) is not silu(-10)
            x = x.abs()
            w13[:hidden] = -w13[:hidden].abs()
        elif hostile == "nan":
            x[0, 0] = float("nan")
        x, w13, w2 = x.to(device), w13.to(device), w2.to(device)
        args: Arguments = {"x": x, "w13": w13, "w2": w2, "limit": 10.0}
        if not plain:
            args["x"] = round_fp8(x, dialect, ACTIVATION_BLOCK)
            args |= {name: round_fp8(args[name], dialect, WEIGHT_BLOCK) for name in ("w13", "w2")}
        return args

    return build


CASES = (
    Case("empty", make(0, 128, 128), unrounded=unrounded),
    Case("one", make(1, 256, 128), unrounded=unrounded),
    Case("ragged", make(5, 128, 256), unrounded=unrounded),
    Case("uneven", make(17, 384, 384), unrounded=unrounded),
    Case("tall", make(67, 128, 128), unrounded=unrounded),
    Case("clamped", make(3, 256, 128, std=8), unrounded=unrounded),
    Case("closed", make(3, 256, 128, "closed"), unrounded=unrounded),
    Case("zero_block", make(3, 256, 256, "zero_block"), unrounded=unrounded),
    Case("nan_in", make(3, 128, 256, "nan"), unrounded=unrounded),
    Case("exact", make(5, 192, 96, plain=True)),
    Case("decode", make(8, 4096, 2048), small=False, large=True),
    Case("prefill", make(1024, 4096, 2048), small=False, large=True),
)
