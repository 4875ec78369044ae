"""hyper_collapse on a CPU: one batched product, one norm."""

import torch


def hyper_collapse(
    streams: torch.Tensor, pre: torch.Tensor, norm_weight: torch.Tensor, *, eps: float
) -> torch.Tensor:
    total = torch.bmm(pre.unsqueeze(1), streams.float()).squeeze(1)
    rounded = total.to(streams.dtype).float()
    normed = torch.rms_norm(rounded, norm_weight.shape, norm_weight.float(), eps)
    return normed.to(streams.dtype)
