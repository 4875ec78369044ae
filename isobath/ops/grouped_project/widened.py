"""wo_a kept twice: FP8 as it came, for few tokens, and as bf16, which holds its values exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.numerics.fp8 import Fp8Tensor, dequantize


@dataclass(frozen=True, slots=True)
class Widened:
    """values: [G, R, K], FP8 as bf16; plain weights as they are. given: the weight as it came.
    Three bytes a value: 67 MB more a layer of V4-Flash."""

    values: torch.Tensor
    given: Fp8Tensor | torch.Tensor

    def product_dtype(self, x: torch.Tensor) -> torch.dtype:
        """What both operands of a product with x are."""
        return torch.promote_types(x.dtype, self.values.dtype)


def widen(weight: Fp8Tensor | torch.Tensor) -> Widened:
    """[G, R, K] in both forms."""
    if not isinstance(weight, Fp8Tensor):
        return Widened(weight, weight)
    groups = [dequantize(_group(weight, g)).to(torch.bfloat16) for g in range(len(weight.data))]
    return Widened(torch.stack(groups), weight)  # one by one: fp32 of all is four times the bytes


def _group(weight: Fp8Tensor, g: int) -> Fp8Tensor:
    return Fp8Tensor(weight.data[g], weight.scale[g], weight.dialect, weight.quant_block)
