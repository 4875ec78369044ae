"""moe: a whole mixture-of-experts block, from the normed input to what goes back into the streams.
route, shared_expert and experts as one op, because their launches can be shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.contract import Arguments, Op
from isobath.ops.experts import ExpertWeights, Summands


class Moe(Protocol):
    """experts(quantized, *route(x, gate, token_ids), expert_weights, shared_expert(quantized)).

    x: [T, D], bf16 or float32, for the gate. quantized: the same rows as the experts take them,
    Fp8Tensor [T, D] in groups of 128, or float32 [T, D]. token_ids: int64 [T], -1 for a padding
    lane, which gets no routed expert. gate, bias, table, k, scale: of route. expert_weights: of
    experts. shared_w13, shared_w2: of shared_expert. Matrices through the backend's `prepare`.
    limit: SwiGLU clamp of all experts.
    Returns [T, D], bf16 with an Fp8Tensor and float32 otherwise, or its Summands. Rounded where the
    parts round. Raises DialectMismatch as shared_expert does.
    """

    def __call__(
        self,
        x: torch.Tensor,
        quantized: Fp8Tensor | torch.Tensor,
        token_ids: torch.Tensor,
        gate: torch.Tensor,
        expert_weights: ExpertWeights,
        shared_w13: Fp8Tensor | torch.Tensor,
        shared_w2: Fp8Tensor | torch.Tensor,
        *,
        bias: torch.Tensor | None,
        table: torch.Tensor | None,
        k: int,
        scale: float,
        limit: float,
    ) -> torch.Tensor | Summands: ...


def observe(result: torch.Tensor | Summands, args: Arguments) -> Mapping[str, torch.Tensor]:
    return {"out0": result.summed() if isinstance(result, Summands) else result}


def select(args: Arguments, rows: list[int]) -> Arguments:
    quantized = args["quantized"]
    if isinstance(quantized, Fp8Tensor):
        data, scale = quantized.data[rows], quantized.scale[rows]
        picked = Fp8Tensor(data, scale, quantized.dialect, quantized.quant_block)
    else:
        picked = quantized[rows]
    chosen = {name: args[name][rows] for name in ("x", "token_ids")}
    return args | chosen | {"quantized": picked}


OP = Op(
    "moe",
    signature=Moe,
    # The loosest of its parts' agreements, shared_expert's; a token sent to another expert is far
    # outside of it. Tests compare the bits with those of the parts.
    agree=Relative(2**-4),
    must=("deterministic", "batch_invariant"),
    weights=("gate", "expert_weights", "shared_w13", "shared_w2"),
    observe=observe,
    select=select,
    asm={"gfx942": ("v_mfma_f32_", "!scratch_")},
    backends=("triton", "torch"),
    source="DeepSeek-V4 report and inference code, MoE.forward",
)
