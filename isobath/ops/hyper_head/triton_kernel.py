"""hyper_head in Triton: hyper_enter's kernels with a mixer that has no Sinkhorn matrix."""

import torch

from isobath.ops.tl_hyper import pass_streams
from isobath.ops.tl_hyper import split_weight as prepare
from isobath.ops.tl_hyper_token import Mixer, finish_tokens

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
    streams, partials = pass_streams(streams, fn, None)
    assert partials is not None, "fn was given"
    mixer = Mixer(partials, base, scale, 0, eps)
    return finish_tokens(streams, mixer, norm_weight, norm_eps=norm_eps).x
