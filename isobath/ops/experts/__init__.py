"""experts: the routed experts, MXFP4 weights, from gather to the block's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.numerics.fp8 import Fp8Tensor
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.work import nbytes, product


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """All routed experts of a layer. w13: [E, 2 * I, D], rows of w1 (gate) then of w3 (up). w2:
    [E, D, I]. Both Mxfp4Tensor, or both plain float32."""

    w13: Mxfp4Tensor | torch.Tensor
    w2: Mxfp4Tensor | torch.Tensor


@dataclass(frozen=True, slots=True)
class Summands:
    """A row a token, left for its reader to add up: what an expert gave in each slot, [T, k, D] in
    `dtype`, then shared, [T, D] or None; float32 sums in that order, rounded to `dtype`.

    experts: int64 [T, k], -1 for a slot without an expert, whose row was never written.
    """

    products: torch.Tensor
    experts: torch.Tensor
    shared: torch.Tensor | None
    dtype: torch.dtype

    def summed(self) -> torch.Tensor:
        """The rows, [T, D]."""
        total = torch.zeros_like(self.products[:, 0], dtype=torch.float32)
        there = (self.experts >= 0).unsqueeze(2)
        for slot in range(self.experts.shape[1]):
            total += self.products[:, slot].masked_fill(~there[:, slot], 0.0)
        if self.shared is not None:
            total += self.shared
        return total.to(self.dtype)

    def of(self, rows: list[int]) -> Summands:
        """Those of some tokens."""
        shared = None if self.shared is None else self.shared[rows]
        return Summands(self.products[rows], self.experts[rows], shared, self.dtype)


class Experts(Protocol):
    """y_t = sum_e w2_e . q(silu(g) * u * weight_e) + shared_t, g = min(w1_e x, limit), u =
    clamp(w3_e x, -limit, limit).

    x: Fp8Tensor [T, D] in groups of 128 with MXFP4 weights, or [T, D] float32 with plain ones.
    experts: int64 [T, k], expert -1 contributes nothing (padding). weights: float32 [T, k].
    A token names no expert twice. expert_weights: through the backend's `prepare`. shared: [T, D],
    bf16 (float32 with plain weights), the shared expert's output, or None. limit: SwiGLU clamp.
    The hidden vector is multiplied by the route weight, rounded to bf16 and quantised as x was (FP8
    per 128, x's dialect) before w2, and what w2 gives to bf16; with plain weights nothing is
    rounded. Returns [T, D], bf16 with an Fp8Tensor and float32 with plain x, or its Summands; a
    token's experts are summed in fp32 in slot order, then shared, and that is rounded.
    """

    def __call__(
        self,
        x: Fp8Tensor | torch.Tensor,
        experts: torch.Tensor,
        weights: torch.Tensor,
        expert_weights: ExpertWeights,
        shared: torch.Tensor | None,
        *,
        limit: float,
    ) -> torch.Tensor | Summands: ...


def observe(result: torch.Tensor | Summands, args: Arguments) -> Mapping[str, torch.Tensor]:
    return {"out0": result.summed() if isinstance(result, Summands) else result}


def select(args: Arguments, rows: list[int]) -> Arguments:
    x = args["x"]
    if isinstance(x, Fp8Tensor):
        picked = Fp8Tensor(x.data[rows], x.scale[rows], x.dialect, x.quant_block)
    else:
        picked = x[rows]
    chosen = {name: args[name][rows] for name in ("experts", "weights")}
    shared = None if args["shared"] is None else args["shared"][rows]
    return args | chosen | {"x": picked, "shared": shared}


def work(args: Arguments) -> Work:
    """The weights of every expert that a token names, three products a pair of token and expert."""
    named = args["experts"][args["experts"] >= 0]
    w13, w2 = args["expert_weights"].w13, args["expert_weights"].w2
    count, width, inner = w2.shape
    weights = nbytes(args["expert_weights"]) * len(named.unique()) // count
    moved = weights + nbytes(args["x"], args["shared"]) + 2 * len(args["x"].data) * width
    assert w13.shape == (count, 2 * inner, width), (w13.shape, w2.shape)
    return Work(moved, product(len(named), 3 * inner, width))


OP = Op(
    "experts",
    signature=Experts,
    # FP8 codes of the hidden vector may flip (2^-3 of a value) where fp32 order moves a bf16
    # rounding; over I >= 128 hidden values the row's error stays under 2^-6. The roundings to bf16
    # of each expert's row and of the sum add 2^-9 each.
    agree=Relative(2**-6),
    must=("deterministic", "batch_invariant"),
    weights=("expert_weights",),
    observe=observe,
    select=select,
    asm={"gfx942": ("v_mfma_f32_", "!scratch_")},
    backends=("triton", "torch", "aiter"),
    work=work,
    source="DeepSeek-V4 report and inference code, Expert.forward; OCP MX 1.0 for MXFP4",
)
