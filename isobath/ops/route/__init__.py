"""route: a token's experts and their weights, from the gate's matrix to the choice."""

from collections.abc import Mapping
from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class Route(Protocol):
    """linear(x, gate), then router: scores s = sqrt(softplus(logits)), experts by table or top-k.

    x: [T, D] bf16 or fp32. gate: [E, D] bf16 or fp32, through the backend's `prepare`. token_ids:
    int64 [T], -1 for a padding lane. bias: float32 [E] for learned routing by s + bias (ties to the
    lower expert; a NaN counts as the largest), or None. table: int64 [vocab, k] for hash routing by
    token id, or None; exactly one of bias and table is given. scale: routed_scaling_factor.
    float32 accumulation and logits, in an order that does not depend on the batch.
    Returns experts int64 [T, k], in the order chosen (highest first) or as in the table, and
    weights float32 [T, k] = s_e / sum(s) * scale, from s without bias. A padding lane gets experts
    -1 and weights 0, whatever its x holds.
    """

    def __call__(
        self,
        x: torch.Tensor,
        gate: torch.Tensor,
        token_ids: torch.Tensor,
        *,
        bias: torch.Tensor | None,
        table: torch.Tensor | None,
        k: int,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def observe(
    result: tuple[torch.Tensor, torch.Tensor], args: Arguments
) -> Mapping[str, torch.Tensor]:
    """Weights laid out by expert, [T, E], and how many slots are empty, [T, 1]. The order of choice
    does not matter."""
    experts, weights = result
    num_experts = len(args["bias"]) if args["bias"] is not None else int(args["table"].max()) + 1
    dense = weights.new_zeros(len(weights), num_experts + 1)  # column 0 collects padding
    dense.scatter_add_(1, experts + 1, weights)
    return {"weights": dense, "empty": (experts < 0).sum(1, keepdim=True).float()}


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"x": args["x"][rows], "token_ids": args["token_ids"][rows]}


OP = Op(
    "route",
    signature=Route,
    # Logits are within 2^-14 of a row's norm (see linear), and are near 1; a score's derivative by
    # its logit is at most 0.6, so weights move by as much. Another expert moves a row by far more.
    agree=Relative(2**-13),
    must=("deterministic", "batch_invariant"),
    weights=("gate",),
    observe=observe,
    select=select,
    asm={"gfx942": ("!scratch_",)},
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, mixture of experts; aux-loss-free bias of DeepSeek-V3",
)
