"""quantize_act: activations to FP8, one UE8M0 scale per 128 values of K."""

from collections.abc import Mapping
from typing import Protocol

import torch

from isobath.numerics.compare import Exact
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.contract import Arguments, Op


class QuantizeAct(Protocol):
    """Quantise each row in groups of 128: amax floor 1e-4, power-of-two scale, ties to even.

    x: [T, K], K a multiple of 128. dialect: of the bytes to write.
    Returns Fp8Tensor [T, K], quant_block (1, 128). A group with NaN or infinity decodes to NaN.
    """

    def __call__(self, x: torch.Tensor, dialect: Dialect) -> Fp8Tensor: ...


def observe(result: Fp8Tensor, args: Arguments) -> Mapping[str, torch.Tensor]:
    return {"values": dequantize(result), "scale": result.scale}


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"x": args["x"][rows]}


OP = Op(
    "quantize_act",
    signature=QuantizeAct,
    agree=Exact(),  # integer arithmetic on exponent bits and one IEEE cast: nothing may differ
    must=("deterministic", "batch_invariant"),
    observe=observe,
    select=select,
    backends=("triton", "torch"),
    source="DeepSeek-V4 inference code, act_quant",
)
