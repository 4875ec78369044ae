"""hyper_head on a CPU: the mixer's GEMM in fp32, then hyper_collapse."""

import torch
from torch.nn.functional import linear

from isobath.ops.hyper_collapse.torch_kernel import hyper_collapse


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
    flat = streams.float().flatten(1)
    rms = torch.rsqrt(flat.square().mean(-1, True).add_(norm_eps))
    u = linear(flat, fn).mul_(rms)
    pre = torch.addcmul(base, u, scale).sigmoid_().add_(eps)
    return hyper_collapse(streams, pre, norm_weight, eps=norm_eps)
