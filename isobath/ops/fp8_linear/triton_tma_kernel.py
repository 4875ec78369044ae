"""fp8_linear on sm_90 with tiles fetched by hardware where there are many tokens.

Few tokens take the triton backend's own tiles; rows have the same bits either way.
"""

from __future__ import annotations

import torch

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.fp8_linear import triton_kernel as small
from isobath.ops.libraries import require_arch
from isobath.ops.tl_tma import Fetch, launch
from isobath.target import detect

require_arch("fp8_linear/triton_tma", detect(), "sm_90")

MANY_TOKENS = 128
FETCH = Fetch(64, 128, 4, 4)
"""Predicted, not measured, as is where it begins to pay."""


def fp8_linear(x: Fp8Tensor, weight: Fp8Tensor) -> torch.Tensor:
    if len(x.data) < MANY_TOKENS or x.dialect != weight.dialect:
        return small.fp8_linear(x, weight)
    return launch(x, weight, FETCH)
