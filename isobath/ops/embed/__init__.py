"""embed: token ids to the residual streams, `copies` equal ones a token."""

from typing import Protocol

import torch

from isobath.numerics.compare import Exact
from isobath.ops.contract import Arguments, Op


class Embed(Protocol):
    """token_ids: int64 [T]; -1 is a padding lane. weight: [vocab, D]. copies: number of streams.

    Returns streams [T, copies, D] in weight.dtype; exact, every copy is the token's row, zeros for
    padding.
    """

    def __call__(
        self, token_ids: torch.Tensor, weight: torch.Tensor, *, copies: int
    ) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"token_ids": args["token_ids"][rows]}


OP = Op(
    "embed",
    signature=Embed,
    agree=Exact(),
    must=("deterministic", "batch_invariant"),
    select=select,
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, manifold-constrained hyper-connections: entry",
)
