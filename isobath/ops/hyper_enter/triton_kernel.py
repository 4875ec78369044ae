"""hyper_enter in Triton: two launches, see ops/tl_hyper.py and ops/tl_hyper_token.py."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.experts import Summands
from isobath.ops.hyper_enter import Entered
from isobath.ops.tl_hyper import Tiles, pass_streams
from isobath.ops.tl_hyper import split_weight as prepare
from isobath.ops.tl_hyper_token import Mixer, finish_tokens

__all__ = ["hyper_enter", "prepare"]


def hyper_enter(
    y: torch.Tensor | Summands | None,
    streams: torch.Tensor,
    post: torch.Tensor | None,
    comb: torch.Tensor | None,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    norm_weight: torch.Tensor,
    *,
    dialect: Dialect | None,
    iters: int,
    eps: float,
    norm_eps: float,
    tiles: Tiles | None = None,
) -> Entered:
    """tiles: other than the machine's, for tuning."""
    expand = None
    if y is not None:
        assert post is not None and comb is not None, "y returns to the streams by post and comb"
        expand = (y, post, comb)
    streams, partials = pass_streams(streams, fn, expand, tiles)
    assert partials is not None, "fn was given"
    done = finish_tokens(
        streams,
        Mixer(partials, base, scale, iters, eps),
        norm_weight,
        norm_eps=norm_eps,
        dialect=dialect,
    )
    quantized = done.x if done.quantized is None else done.quantized
    return Entered(streams, done.x, quantized, done.post, done.comb)
