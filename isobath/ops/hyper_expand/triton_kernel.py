"""hyper_expand in Triton: hyper_enter's pass over the streams without its projection."""

import torch

from isobath.ops.experts import Summands
from isobath.ops.tl_hyper import pass_streams


def hyper_expand(
    y: torch.Tensor | Summands, streams: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    return pass_streams(streams, None, (y, post, comb))[0]
