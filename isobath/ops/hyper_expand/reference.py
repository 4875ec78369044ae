"""hyper_expand in plain terms, fp64."""

import torch


def hyper_expand(
    y: torch.Tensor, streams: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    fresh = post.double().unsqueeze(-1) * y.double().unsqueeze(1)
    mixed = torch.einsum("tjk,tjd->tkd", comb.double(), streams.double())
    return (fresh + mixed).to(streams.dtype)
