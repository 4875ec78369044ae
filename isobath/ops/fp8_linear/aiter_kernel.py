"""fp8_linear through AITER's block-scaled FP8 GEMM, on gfx942.

An adapter: the library takes float32 factors in place of UE8M0 bytes, FNUZ operands, and returns
bf16. Its signature is checked when this module is loaded. It has never been executed by us; the
op's cases judge it wherever it is installed.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch

from isobath.errors import DialectMismatch
from isobath.numerics import ue8m0
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.libraries import function_of, require_arch
from isobath.ops.tl_scales import factors
from isobath.target import detect

PARAMETERS = ("XQ", "WQ", "x_scale", "w_scale", "dtype")

require_arch("fp8_linear/aiter", detect(), "gfx942")
gemm = function_of(importlib.import_module("aiter"), "gemm_a8w8_blockscale", PARAMETERS)


@dataclass(frozen=True, slots=True)
class Factored:
    """data: FP8 [N, K]. factors: float32 [N/128, K/128]. dialect: of the bytes."""

    data: torch.Tensor
    factors: torch.Tensor
    dialect: Dialect


def prepare(weight: Fp8Tensor) -> Factored:
    return Factored(weight.data, ue8m0.decode(weight.scale), weight.dialect)


def fp8_linear(x: Fp8Tensor, weight: Factored) -> torch.Tensor:
    if x.dialect != weight.dialect:
        raise DialectMismatch(
            f"fp8_linear(weight=): expected {x.dialect} like the activations",
            found=str(weight.dialect),
            effect="the product would be off by a factor of two",
            do="transcode the weight at load",
        )
    if not len(x.data):
        return torch.empty(0, len(weight.data), dtype=torch.bfloat16, device=x.data.device)
    scale = factors(x.scale, transposed=False)
    out: torch.Tensor = gemm(x.data, weight.data, scale, weight.factors, torch.bfloat16)
    return out
