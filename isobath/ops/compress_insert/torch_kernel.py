"""compress_insert on a CPU: pooling vectorised over the entries that come due.

Entries go in chunks whose intermediates stay in the core's cache; no shape depends on a value.
Padding among the rows to keep is written to state row 0.
"""

from functools import cache as memoize

import torch

from isobath.cache.view import CacheView
from isobath.ops.torch_rows import rotate_, store

_CHUNK_ROWS = 512
"""Pooled rows of a chunk: 1 MiB of k and as much of the gate at 512 channels."""


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
    single: bool = False,
) -> None:
    if len(fresh) == 0:
        return
    step = torch.stack((fresh[:, 0], fresh[:, 1] + ape.index_select(0, positions % len(ape))), 1)
    if len(pool_rows):
        width = norm_weight.shape[0]
        pooled = _pool(step, state, pool_rows, width).to(dtype).float()
        normed = torch.nn.functional.rms_norm(pooled, (width,), norm_weight.float(), eps)
        store(cache, entry_rows, rotate_(normed, cos_sin).to(dtype).float())
    kept = step.index_select(0, keep_tokens.clamp_min(0))
    state.index_copy_(0, keep_rows.clamp_min(0), kept)


def _pool(
    step: torch.Tensor, state: torch.Tensor, pool_rows: torch.Tensor, width: int
) -> torch.Tensor:
    """float32 [E, width]: the gate's softmax over each window's tokens, channel by channel."""
    chunk = max(1, _CHUNK_ROWS // pool_rows.shape[1])
    if len(pool_rows) <= chunk:
        return _pool_chunk(step, state, pool_rows, width)
    return torch.cat([_pool_chunk(step, state, part, width) for part in pool_rows.split(chunk)])


def _pool_chunk(
    step: torch.Tensor, state: torch.Tensor, pool_rows: torch.Tensor, width: int
) -> torch.Tensor:
    entries, count = pool_rows.shape
    halves = step.shape[-1] // width
    places, per_row = _places(count, halves), 2 * halves
    rows = pool_rows.unsqueeze(1)
    fresh_index = (rows.clamp_min(0) * per_row + places).view(-1)
    state_index = ((-2 - rows).clamp_min_(0) * per_row + places).view(-1)
    fresh = step.view(-1, width).index_select(0, fresh_index)
    old = state.view(-1, width).index_select(0, state_index)
    both = torch.where((rows < -1).expand(-1, 2, -1).reshape(-1, 1), old, fresh)
    k, gate = both.view(entries, 2, count, width).unbind(1)
    absent = (pool_rows == -1).unsqueeze(2)
    weights = torch.softmax(gate.masked_fill_(absent, -torch.inf), 1)
    return weights.mul_(k.masked_fill_(absent, 0.0)).sum(1)


@memoize
def _places(count: int, halves: int) -> torch.Tensor:
    """int64 [2, count]: where the k and gate of each place of a window begin within a state row,
    in units of the entry's width. With overlapping windows the later places use the second half."""
    half = torch.arange(count) * halves // count
    return torch.stack((half, half + halves))
