"""hyper_mix in plain terms: fp64, the Sinkhorn steps one by one."""

import torch


def mixes(streams: torch.Tensor, fn: torch.Tensor, norm_eps: float) -> torch.Tensor:
    """fn . x / rms(x) over all stream values of a token: float64 [T, rows of fn]."""
    flat = streams.double().flatten(1)
    rms = (flat.square().mean(-1, keepdim=True) + norm_eps).sqrt()
    return flat @ fn.double().T / rms


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
    tokens, count, _ = streams.shape
    u, offset, factor = mixes(streams, fn, norm_eps), base.double(), scale.double()
    of_pre, of_post, of_comb = slice(0, count), slice(count, 2 * count), slice(2 * count, None)
    pre = torch.sigmoid(u[:, of_pre] * factor[0] + offset[of_pre]) + eps
    post = 2 * torch.sigmoid(u[:, of_post] * factor[1] + offset[of_post])
    comb = (u[:, of_comb] * factor[2] + offset[of_comb]).view(tokens, count, count)
    comb = comb.softmax(2) + eps
    for step in range(iters):
        if step > 0:  # the softmax was the first row step
            comb = comb / (comb.sum(2, keepdim=True) + eps)
        comb = comb / (comb.sum(1, keepdim=True) + eps)
    return pre.float(), post.float(), comb.float()
