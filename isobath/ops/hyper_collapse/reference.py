"""hyper_collapse in plain terms: a weighted sum of the streams in fp64, then rms_norm."""

import torch

from isobath.ops.rms_norm.reference import rms_norm


def hyper_collapse(
    streams: torch.Tensor, pre: torch.Tensor, norm_weight: torch.Tensor, *, eps: float
) -> torch.Tensor:
    total = (pre.double().unsqueeze(-1) * streams.double()).sum(1)
    return rms_norm(total.to(streams.dtype), norm_weight, eps=eps)
