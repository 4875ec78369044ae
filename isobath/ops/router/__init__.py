"""router: which experts a token visits, and with what weight."""

from collections.abc import Mapping
from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class Router(Protocol):
    """scores s = sqrt(softplus(logits)); experts by table or by top-k of s + bias.

    logits: float32 [T, E]. bias: float32 [E] for learned routing (ties to the lower expert), or
    None. table: int64 [vocab, k] for hash routing with token_ids int64 [T], or None; exactly one
    of bias and table is given. scale: routed_scaling_factor.
    Returns experts int64 [T, k], in the order chosen (highest first) or as in the table, and
    weights float32 [T, k] = s_e / sum(s) * scale, from s without bias.
    """

    def __call__(
        self,
        logits: torch.Tensor,
        *,
        bias: torch.Tensor | None,
        table: torch.Tensor | None,
        token_ids: torch.Tensor | None,
        k: int,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def observe(
    result: tuple[torch.Tensor, torch.Tensor], args: Arguments
) -> Mapping[str, torch.Tensor]:
    """Weights laid out by expert: [T, E]. The order of choice does not matter."""
    experts, weights = result
    dense = torch.zeros(args["logits"].shape, device=weights.device)
    return {"weights": dense.scatter_add_(1, experts, weights)}


def select(args: Arguments, rows: list[int]) -> Arguments:
    token_ids = args["token_ids"]
    picked = None if token_ids is None else token_ids[rows]
    return args | {"logits": args["logits"][rows], "token_ids": picked}


OP = Op(
    "router",
    signature=Router,
    # softplus, sqrt and a division in fp32: a few ulp of 2^-24 each. A different expert moves a row
    # by far more than the tolerance.
    agree=Relative(2**-18),
    must=("deterministic", "batch_invariant"),
    observe=observe,
    select=select,
    source="DeepSeek-V4 report, mixture of experts; aux-loss-free bias of DeepSeek-V3",
)
