"""router on a CPU: fp32 scores; a stable sort settles ties, which top-k does not promise to."""

import torch
from torch.nn.functional import softplus


def router(
    logits: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
    token_ids: torch.Tensor | None,
    k: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = softplus(logits).sqrt_()
    if bias is not None:
        order = torch.sort(scores + bias, dim=-1, descending=True, stable=True).indices
        experts = order[:, :k]
    else:
        assert table is not None and token_ids is not None, "hash routing reads the token ids"
        experts = table.index_select(0, token_ids)
    chosen = scores.gather(1, experts)
    return experts, chosen.div_(chosen.sum(-1, True)).mul_(scale)
