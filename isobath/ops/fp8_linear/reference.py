"""fp8_linear in plain terms: decode both operands, multiply in fp64, round once to bf16."""

import torch

from isobath.errors import DialectMismatch
from isobath.numerics.fp8 import Fp8Tensor, dequantize


def fp8_linear(x: Fp8Tensor | torch.Tensor, weight: Fp8Tensor | torch.Tensor) -> torch.Tensor:
    """Also takes unquantised operands, which gives the result that the format departs from."""
    if isinstance(x, Fp8Tensor) and isinstance(weight, Fp8Tensor) and x.dialect != weight.dialect:
        raise DialectMismatch(
            f"fp8_linear(weight=): expected {x.dialect} like the activations",
            found=str(weight.dialect),
            effect="the product would be off by a factor of two",
            do="transcode the weight at load",
        )
    wide = [dequantize(t) if isinstance(t, Fp8Tensor) else t for t in (x, weight)]
    return (wide[0].double() @ wide[1].double().T).to(torch.bfloat16)
