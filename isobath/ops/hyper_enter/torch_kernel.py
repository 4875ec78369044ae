"""hyper_enter on a CPU: its parts' kernels, one after the other."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.experts import Summands
from isobath.ops.hyper_collapse.torch_kernel import hyper_collapse
from isobath.ops.hyper_enter import Entered
from isobath.ops.hyper_expand.torch_kernel import hyper_expand
from isobath.ops.hyper_mix.torch_kernel import hyper_mix, prepare
from isobath.ops.quantize_act.torch_kernel import quantize_act

__all__ = ["hyper_enter", "prepare"]


def hyper_enter(
    y: torch.Tensor | Summands | None,
    streams: torch.Tensor,
    post: torch.Tensor | None,
    comb: torch.Tensor | None,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    norm_weight: torch.Tensor,
    *,
    dialect: Dialect | None,
    iters: int,
    eps: float,
    norm_eps: float,
) -> Entered:
    if y is not None:
        assert post is not None and comb is not None, "y returns to the streams by post and comb"
        streams = hyper_expand(y, streams, post, comb)
    pre, post, comb = hyper_mix(streams, fn, base, scale, iters=iters, eps=eps, norm_eps=norm_eps)
    x = hyper_collapse(streams, pre, norm_weight, eps=norm_eps)
    return Entered(streams, x, quantize_act(x, dialect) if dialect else x, post, comb)
