"""experts in plain terms: slot by slot and token by token, fp64 products.

With plain activations nothing is rounded anywhere; with FP8 ones the hidden vector is rounded to
bf16 and quantised like them, and each expert's row and their sum are rounded to bf16.
"""

import torch

from isobath.numerics.fp8 import Fp8Tensor, dequantize, quantize
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.numerics.mxfp4 import dequantize as dequantize_mxfp4
from isobath.ops.experts import ExpertWeights


def experts(
    x: Fp8Tensor | torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    expert_weights: ExpertWeights,
    shared: torch.Tensor | None,
    *,
    limit: float,
) -> torch.Tensor:
    w13, w2 = _wide(expert_weights.w13), _wide(expert_weights.w2)
    rows = dequantize(x).double() if isinstance(x, Fp8Tensor) else x.double()
    out = torch.zeros_like(rows)
    for token, chosen in enumerate(experts.tolist()):
        for slot, expert in enumerate(chosen):
            if expert < 0:
                continue
            gate, up = (w13[expert] @ rows[token]).chunk(2)
            g, u = gate.clamp(max=limit), up.clamp(-limit, limit)
            hidden = g * torch.sigmoid(g) * u * weights[token, slot].double()
            if isinstance(x, Fp8Tensor):
                rounded = hidden.to(torch.bfloat16).unsqueeze(0)
                hidden = dequantize(quantize(rounded, x.dialect, x.quant_block)).squeeze(0)
            row = w2[expert] @ hidden.double()
            out[token] += row.to(torch.bfloat16) if isinstance(x, Fp8Tensor) else row
    if shared is not None:
        out += shared.double()
    return out.float().to(torch.bfloat16 if isinstance(x, Fp8Tensor) else torch.float32)


def _wide(weight: Mxfp4Tensor | torch.Tensor) -> torch.Tensor:
    return (dequantize_mxfp4(weight) if isinstance(weight, Mxfp4Tensor) else weight).double()
