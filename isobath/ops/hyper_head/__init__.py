"""hyper_head: the streams after the last layer to the normed input of the LM head."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class HyperHead(Protocol):
    """Collapse by the head's own mixer (sigmoid only: no Sinkhorn, no post), then RMSNorm.

    streams: [T, S, D]. fn: float32 [S, S * D]. base: float32 [S]. scale: float32 [1].
    norm_weight: [D]. eps: added to the sigmoid. norm_eps: of both norms. Returns [T, D] in
    streams.dtype, rounded after the collapse and after the norm.
    """

    def __call__(
        self,
        streams: torch.Tensor,
        fn: torch.Tensor,
        base: torch.Tensor,
        scale: torch.Tensor,
        norm_weight: torch.Tensor,
        *,
        eps: float,
        norm_eps: float,
    ) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"streams": args["streams"][rows]}


OP = Op(
    "hyper_head",
    signature=HyperHead,
    agree=Relative(2**-7),  # two bf16 roundings, as hyper_collapse
    must=("deterministic", "batch_invariant"),
    weights=("fn",),
    select=select,
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, manifold-constrained hyper-connections: head",
)
