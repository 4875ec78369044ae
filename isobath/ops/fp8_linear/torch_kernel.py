"""fp8_linear on a CPU: weights decoded to bf16 once at load, one bf16 GEMM a call.

Decoded FP8 values are exact in bf16 and the GEMM sums in float32, so only the order of summation is
its own. It costs two bytes a weight; this backend is for models that fit so. A weight whose scales
leave bf16's range stays float32.
"""

from dataclasses import dataclass

import torch

from isobath.errors import DialectMismatch
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.torch_fp8 import decode_rows
from isobath.ops.torch_gemm import matmul, narrow, pack


@dataclass(frozen=True, slots=True)
class Widened:
    """values: bf16 [N, K], decoded and packed. dialect: of the bytes it came from."""

    values: torch.Tensor
    dialect: Dialect


def prepare(weight: Fp8Tensor) -> Widened:
    return Widened(pack(narrow(dequantize(weight))), weight.dialect)


def fp8_linear(x: Fp8Tensor, weight: Widened) -> torch.Tensor:
    if x.dialect != weight.dialect:
        raise DialectMismatch(
            f"fp8_linear(weight=): expected {x.dialect} like the activations",
            found=str(weight.dialect),
            effect="the product would be off by a factor of two",
            do="transcode the weight at load",
        )
    return matmul(decode_rows(x), weight.values).to(torch.bfloat16)
