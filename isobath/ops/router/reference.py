"""router in plain terms: scores in fp64, experts by a stable descending sort of fp32 sums.

The bias is added in fp32 because ties are defined there: biases near 8 swallow the last bits of a
score, and two experts whose sums are equal in fp32 must be chosen by number.
"""

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
    assert (bias is None) != (table is None), "exactly one of bias and table"
    wide = logits.double()
    scores = torch.logaddexp(wide, torch.zeros_like(wide)).sqrt()
    if bias is not None:
        choice = scores.float() + bias
        experts = torch.sort(choice, dim=-1, descending=True, stable=True).indices[:, :k]
    else:
        assert table is not None and token_ids is not None, "hash routing reads the token ids"
        experts = table[token_ids]
    chosen = scores.gather(1, experts)
    return experts, (chosen / chosen.sum(-1, keepdim=True) * scale).float()
