"""compress_insert on a CPU: pooling vectorised over the entries that come due.

Padding among the rows to keep repeats a row that is really kept, or rewrites a row's own content
when there is none, so that no shape depends on a value.
"""

import torch

from isobath.cache.view import CacheView
from isobath.ops.torch_rows import rotate_, store


def compress_insert(
    fresh: torch.Tensor,
    ape: torch.Tensor,
    norm_weight: torch.Tensor,
    cos_sin: torch.Tensor,
    state: torch.Tensor,
    cache: CacheView,
    *,
    positions: torch.Tensor,
    pool_rows: torch.Tensor,
    entry_rows: torch.Tensor,
    keep_tokens: torch.Tensor,
    keep_rows: torch.Tensor,
    dtype: torch.dtype,
    eps: float,
) -> None:
    if len(fresh) == 0:
        return
    step = torch.stack((fresh[:, 0], fresh[:, 1] + ape.index_select(0, positions % len(ape))), 1)
    if len(pool_rows):
        width = norm_weight.shape[0]
        pooled = _pool(step, state, pool_rows, width).to(dtype).float()
        normed = torch.nn.functional.rms_norm(pooled, (width,), norm_weight.float(), eps)
        store(cache, entry_rows, rotate_(normed, cos_sin).to(dtype).float())
    if len(keep_tokens):
        _keep(step, state, keep_tokens, keep_rows)


def _pool(
    step: torch.Tensor, state: torch.Tensor, pool_rows: torch.Tensor, width: int
) -> torch.Tensor:
    """float32 [E, width]: the gate's softmax over each window's tokens, channel by channel."""
    entries, count = pool_rows.shape
    halves = step.shape[-1] // width
    index = torch.arange(count, device=step.device) * halves // count  # the half of each place
    # As matrices of `width` columns, row (token * 2 + kind) * halves + half; kind 0: k, 1: gate.
    fresh_index = (pool_rows.clamp_min(0) * 2 * halves + index).reshape(-1)
    state_index = ((-2 - pool_rows).clamp_min_(0) * 2 * halves + index).reshape(-1)
    from_state = (pool_rows < -1).unsqueeze(-1)
    absent = (pool_rows == -1).unsqueeze(-1)
    shape = (entries, count, width)
    picked = []
    for kind, missing in ((0, 0.0), (1, -torch.inf)):
        offset = kind * halves
        fresh = step.view(-1, width).index_select(0, fresh_index + offset).view(shape)
        old = state.view(-1, width).index_select(0, state_index + offset).view(shape)
        picked.append(torch.where(from_state, old, fresh).masked_fill_(absent, missing))
    k, gate = picked
    return (torch.softmax(gate, 1) * k).sum(1)


def _keep(
    step: torch.Tensor, state: torch.Tensor, keep_tokens: torch.Tensor, keep_rows: torch.Tensor
) -> None:
    """state[keep_rows] = step[keep_tokens], but for tokens -1."""
    wanted = keep_tokens >= 0
    some = wanted.to(torch.uint8).argmax().view(1)
    tokens = torch.where(wanted, keep_tokens, keep_tokens.index_select(0, some))
    rows = torch.where(wanted, keep_rows, keep_rows.index_select(0, some)).clamp_min_(0)
    values = step.index_select(0, tokens.clamp_min(0))
    old = state.index_select(0, rows)
    state.index_copy_(0, rows, torch.where((tokens >= 0).view(-1, 1, 1), values, old))
