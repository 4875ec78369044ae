"""hyper_mix in Triton: hyper_enter's kernels without their other steps, bit for bit."""

import torch

from isobath.ops.tl_hyper import pass_streams
from isobath.ops.tl_hyper import split_weight as prepare
from isobath.ops.tl_hyper_token import Mixer, finish_tokens

__all__ = ["hyper_mix", "prepare"]


def hyper_mix(
    streams: torch.Tensor,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    *,
    iters: int,
    eps: float,
    norm_eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    streams, partials = pass_streams(streams, fn, None)
    assert partials is not None, "fn was given"
    mixer = Mixer(partials, base, scale, iters, eps)
    done = finish_tokens(streams, mixer, None, norm_eps=norm_eps)
    return done.pre, done.post, done.comb
