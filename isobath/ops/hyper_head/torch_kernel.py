"""hyper_head on a CPU: the mixer's GEMM in fp32, then hyper_collapse."""

import torch

from isobath.ops.hyper_collapse.torch_kernel import hyper_collapse
from isobath.ops.hyper_mix.torch_kernel import mixes, prepare, sigmoid

__all__ = ["hyper_head", "prepare"]


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
    pre = sigmoid(torch.addcmul(base, u, scale)).add_(eps)
    return hyper_collapse(streams, pre, norm_weight, eps=norm_eps)
