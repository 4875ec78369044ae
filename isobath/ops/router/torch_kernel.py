"""router on a CPU: fp32 scores; a stable sort settles ties, which top-k does not promise to.

softplus is numpy's exp and log1p: torch's takes another path for the elements that do not fill a
vector register, so that a token's weights would depend on its neighbours in their last bit.
"""

import numpy as np
import torch


def router(
    logits: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
    token_ids: torch.Tensor | None,
    k: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = _softplus(logits).sqrt_()
    if bias is not None:
        order = torch.sort(scores + bias, dim=-1, descending=True, stable=True).indices
        experts = order[:, :k]
    else:
        assert table is not None and token_ids is not None, "hash routing reads the token ids"
        experts = table.index_select(0, token_ids)
    chosen = scores.gather(1, experts)
    return experts, chosen.div_(chosen.sum(-1, True)).mul_(scale)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + e^x) as max(x, 0) + log1p(e^-|x|), which cannot overflow. Returns a new tensor."""
    values = x.numpy()
    tail = np.log1p(np.exp(-np.abs(values)))
    return torch.from_numpy(tail).add_(x.clamp_min(0))
