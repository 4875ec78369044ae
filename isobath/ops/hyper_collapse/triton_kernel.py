"""hyper_collapse in Triton: hyper_enter's second kernel with the gates given."""

import torch

from isobath.ops.tl_hyper_token import finish_tokens


def hyper_collapse(
    streams: torch.Tensor, pre: torch.Tensor, norm_weight: torch.Tensor, *, eps: float
) -> torch.Tensor:
    return finish_tokens(streams, pre, norm_weight, norm_eps=eps).x
