"""route: a token's experts and their weights, from the gate's matrix to the choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs (token, slot), numbered token * k + slot, by expert and then by number.

    order: int32 [T * k], those with an expert first; the rest is not written. tiles: int32 [n, 3],
    (expert, first place in order, pairs), each of one expert and of at most `height` pairs, in
    order; 0 pairs past the last tile, whatever the other two say.
    """

    order: torch.Tensor
    tiles: torch.Tensor
    height: int


@dataclass(frozen=True, slots=True)
class Routes:
    """experts: int64 [T, k]. weights: float32 [T, k]. pairs: the same sorted, where a backend has
    done that along with the choice."""

    experts: torch.Tensor
    weights: torch.Tensor
    pairs: Pairs | None = None


class Route(Protocol):
    """linear(x, gate), then router: scores s = sqrt(softplus(logits)), experts by table or top-k.

    x: [T, D] bf16 or fp32. gate: [E, D] bf16 or fp32, through the backend's `prepare`. token_ids:
    int64 [T], -1 for a padding lane. bias: float32 [E] for learned routing by s + bias (ties to the
    lower expert; a NaN counts as the largest), or None. table: int64 [vocab, k] for hash routing by
    token id, or None; exactly one of bias and table is given. scale: routed_scaling_factor.
    float32 accumulation and logits, in an order that does not depend on the batch.
    Returns experts in the order chosen (highest first) or as in the table, and weights
    s_e / sum(s) * scale, from s without bias. A padding lane gets experts -1 and weights 0,
    whatever its x holds.
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
    ) -> Routes: ...


def observe(result: Routes, args: Arguments) -> Mapping[str, torch.Tensor]:
    """Weights laid out by expert, [T, E], how many slots are empty, and how many of a token's pairs
    are where they belong if there are sorted ones, [T, 1]. The order of choice does not matter."""
    experts, weights = result.experts, result.weights
    num_experts = len(args["bias"]) if args["bias"] is not None else int(args["table"].max()) + 1
    dense = weights.new_zeros(len(weights), num_experts + 1)  # column 0 collects padding
    dense.scatter_add_(1, experts + 1, weights)
    empty = (experts < 0).sum(1, keepdim=True).float()
    return {"weights": dense, "empty": empty, "sorted": _in_place(result).to(empty)}


def _in_place(routes: Routes) -> torch.Tensor:
    """Of each token's pairs that have an expert, the number that `pairs` has in their place, or
    that number itself where nothing is sorted: [T, 1]."""
    there = routes.experts >= 0
    if routes.pairs is None or not there.numel():
        return there.sum(1, keepdim=True)
    expert, order = routes.experts.flatten().cpu(), routes.pairs.order.cpu().long()
    wanted = torch.argsort(expert, stable=True)[int((expert < 0).sum()) :]
    right, place = torch.zeros_like(expert), 0
    for of, first, count in routes.pairs.tiles.tolist():
        if first == place and 0 < count <= routes.pairs.height:
            mine = wanted[first : first + count]
            right[mine] += (order[first : first + len(mine)] == mine) & (expert[mine] == of)
            place += count
    return right.view(there.shape).sum(1, keepdim=True)


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
