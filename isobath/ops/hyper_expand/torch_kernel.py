"""hyper_expand on a CPU: one batched product that starts from the block's output."""

import torch

from isobath.ops.experts import Summands


def hyper_expand(
    y: torch.Tensor | Summands, streams: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    y = y.summed() if isinstance(y, Summands) else y
    fresh = post.unsqueeze(2) * y.unsqueeze(1).float()
    return torch.baddbmm(fresh, comb.transpose(1, 2), streams.float()).to(streams.dtype)
