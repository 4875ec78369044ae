"""Inputs for grouped_project: grouped_linear's, with whole quantisation groups of outputs."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.grouped_linear.cases import make as make_linear
from isobath.ops.operands import unrounded

FP32 = torch.float32


def quantized(make: Make) -> Make:
    """The same inputs, the output quantised in the case's dialect."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        return make(dialect, device, generator) | {"dialect": dialect}

    return build


def plain(make: Make) -> Make:
    """The same inputs, nothing quantised on the way out."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        return make(dialect, device, generator) | {"dialect": None}

    return build


CASES = (
    Case("empty", quantized(make_linear(0, 2, 128, 128)), unrounded=unrounded),
    Case("one", quantized(make_linear(1, 2, 128, 256)), unrounded=unrounded),
    Case("one_group", quantized(make_linear(3, 1, 128, 128)), unrounded=unrounded),
    Case("ragged", quantized(make_linear(5, 3, 128, 128)), unrounded=unrounded),
    Case("two_blocks", quantized(make_linear(17, 2, 256, 384)), unrounded=unrounded),
    Case("tall", quantized(make_linear(67, 2, 128, 128)), unrounded=unrounded),
    Case("zero_block", quantized(make_linear(3, 2, 128, 128, "zero_block")), unrounded=unrounded),
    Case("nan_in", quantized(make_linear(3, 2, 128, 128, "nan")), unrounded=unrounded),
    Case("plain_weight", quantized(make_linear(5, 2, 128, 128, plain=True))),
    Case("unquantized", plain(make_linear(5, 3, 96, 128)), unrounded=unrounded),
    Case("exact", plain(make_linear(5, 2, 64, 128, plain=True, dtype=FP32))),
    Case("decode", quantized(make_linear(8, 8, 1024, 4096)), small=False, large=True),
    Case("prefill", quantized(make_linear(1024, 8, 1024, 4096)), small=False, large=True),
)
