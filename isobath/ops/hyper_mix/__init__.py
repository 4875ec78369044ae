"""hyper_mix: the data-dependent mixing coefficients of one block from the residual streams."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class HyperMix(Protocol):
    """Hyper-connection coefficients, all float32, one GEMM and a Sinkhorn projection a token.

    streams: [T, S, D] (S streams, bf16 or fp32), flattened stream-major. fn: float32
    [(2 + S) * S, S * D]. base: float32 [(2 + S) * S]. scale: float32 [3] for pre, post, comb.
    iters: Sinkhorn column steps (20; the softmax counts as the first row step and the last step is
    a column step). eps: added in pre, in the softmax and to every sum. norm_eps: of the weightless
    RMS norm over all S * D values.

    Returns pre [T, S] = sigmoid + eps, post [T, S] = 2 sigmoid, comb [T, S(in), S(out)].
    """

    def __call__(
        self,
        streams: torch.Tensor,
        fn: torch.Tensor,
        base: torch.Tensor,
        scale: torch.Tensor,
        *,
        iters: int,
        eps: float,
        norm_eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"streams": args["streams"][rows]}


OP = Op(
    "hyper_mix",
    signature=HyperMix,
    # fp32 against fp64: a GEMM over S * D <= 16384 terms errs by about sqrt(16384) * 2^-24 = 8e-6
    # of its largest term, and Sinkhorn contracts errors; 2^-14 leaves a factor of 8.
    agree=Relative(2**-14),
    must=("deterministic", "batch_invariant"),
    weights=("fn",),
    select=select,
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, manifold-constrained hyper-connections",
)
