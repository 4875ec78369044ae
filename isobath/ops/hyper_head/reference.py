"""hyper_head in plain terms: the mixer's GEMM, a sigmoid, and hyper_collapse's reference."""

import torch

from isobath.ops.hyper_collapse.reference import hyper_collapse
from isobath.ops.hyper_mix.reference import mixes


def hyper_head(
    streams: torch.Tensor,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    norm_weight: torch.Tensor,
    *,
    eps: float,
    norm_eps: float,
) -> torch.Tensor:
    u = mixes(streams, fn, norm_eps)
    pre = torch.sigmoid(u * scale.double() + base.double()) + eps
    return hyper_collapse(streams, pre, norm_weight, eps=norm_eps)
