"""hyper_expand in plain terms, fp64."""

import torch

from isobath.ops.experts import Summands


def hyper_expand(
    y: torch.Tensor | Summands, streams: torch.Tensor, post: torch.Tensor, comb: torch.Tensor
) -> torch.Tensor:
    y = _added(y) if isinstance(y, Summands) else y
    fresh = post.double().unsqueeze(-1) * y.double().unsqueeze(1)
    mixed = torch.einsum("tjk,tjd->tkd", comb.double(), streams.double())
    return (fresh + mixed).to(streams.dtype)


def _added(parts: Summands) -> torch.Tensor:
    """Token by token and slot by slot, in float32: the order is the contract's."""
    total = torch.zeros(len(parts.experts), parts.products.shape[2])
    for token, chosen in enumerate(parts.experts.tolist()):
        for slot, expert in enumerate(chosen):
            if expert >= 0:
                total[token] += parts.products[token, slot].float().cpu()
        if parts.shared is not None:
            total[token] += parts.shared[token].float().cpu()
    return total.to(parts.products.device, parts.dtype)
