"""experts through AITER: always refused, with the reason, so that asking for it is answered.

On gfx942 AITER multiplies MXFP4 experts by bf16 activations (moe_gemm_a16w4). Its inputs could be
decoded FP8 rows, but it rounds gate and up to bf16 before the activation and applies the route
weight after w2, while the contract keeps fp32 and quantises the weighted hidden vector to FP8
before w2. Its moe_gemm_a8w4 takes one static FP8 scale. Nothing of AITER is imported but its name;
without AITER the refusal is that it is not installed.
"""

from __future__ import annotations

import importlib

from isobath.errors import BackendUnavailable

_version = getattr(importlib.import_module("aiter"), "__version__", "of unknown version")

raise BackendUnavailable(
    "experts: expected FP8 activations in groups of 128 and a hidden vector quantised before w2",
    found=f"aiter {_version}: moe_gemm_a16w4 with bf16 activations, moe_gemm_a8w4 with one static "
    "scale",
    effect="a token's experts would be other numbers than those the model was trained with",
    do="bind experts to triton",
)
