"""index_logits on a CPU.

Up to one token a sequence, every token gathers its own keys and nothing is read back. With more
tokens than the table has sequences (prefill) keys are decoded once a sequence and tokens go in
chunks, so that the [tokens, heads, entries] intermediate stays small. Key scales are powers of two
and positive, so they are applied after the sum over heads.

Both ways give the same bits (2026-11-21, AMD EPYC, torch 2.13, MKL, 1 and 2 threads; 3 to 64 heads,
4 to 336 entries, cut everywhere), provided that there are whole fours of heads: MKL multiplies 1
to 3 rows in another order.
"""

import torch
from torch.nn.functional import pad

from isobath.cache.view import CacheView, Pages
from isobath.numerics.dialect import dialect_of
from isobath.ops.torch_rows import chunk_size, gather, half, half_factor

_HEADS = 4
"""Heads come in multiples of this."""


def index_logits(
    q: torch.Tensor,
    weights: torch.Tensor,
    cache: CacheView,
    *,
    pages: Pages,
    sequence: torch.Tensor,
    visible: torch.Tensor,
) -> torch.Tensor:
    queries, weights = _queries(q, weights, cache)
    hidden = torch.arange(pages.capacity, device=q.device) >= visible.unsqueeze(1)
    if len(q) <= len(pages.table):
        size = chunk_size(len(q), pages.capacity * 4 * q.shape[2])
        parts = [slice(start, start + size) for start in range(0, max(1, len(q)), size)]
        scores = [_by_token(queries[p], weights[p], cache, pages, sequence[p]) for p in parts]
        whole = torch.cat(scores) if len(scores) > 1 else scores[0]
        return whole.masked_fill_(hidden, -torch.inf)
    out = torch.empty(len(q), pages.capacity, device=q.device)
    begin = 0
    which, lengths = torch.unique_consecutive(sequence, return_counts=True)
    for one, length in zip(which.split(1), lengths.tolist(), strict=True):
        end = begin + length
        keys, factor = _keys(cache, pages, one)
        _score_run(out[begin:end], queries[begin:end], weights[begin:end], keys[0], factor)
        begin = end
    return out.masked_fill_(hidden, -torch.inf)


def _by_token(
    queries: torch.Tensor,
    weights: torch.Tensor,
    cache: CacheView,
    pages: Pages,
    sequence: torch.Tensor,
) -> torch.Tensor:
    """Scores [T, N] before masking, every token over keys of its own."""
    keys, factor = _keys(cache, pages, sequence)
    closed = torch.bmm(queries, keys.transpose(1, 2)).relu_()
    return torch.bmm(weights.unsqueeze(1), closed).squeeze(1).mul_(factor)


def _score_run(
    out: torch.Tensor,
    queries: torch.Tensor,
    weights: torch.Tensor,
    keys: torch.Tensor,
    factor: torch.Tensor,
) -> None:
    """Fill out [n, N] for n tokens that share keys [N, d]."""
    heads = queries.shape[1]
    chunk = chunk_size(len(out), 4 * heads * len(keys))
    for start in range(0, len(out), chunk):
        part = slice(start, start + chunk)
        dots = queries[part].flatten(0, 1) @ keys.T
        closed = dots.relu_().unflatten(0, (-1, heads))
        torch.mul(torch.bmm(weights[part].unsqueeze(1), closed).squeeze(1), factor, out=out[part])


def _queries(
    q: torch.Tensor, weights: torch.Tensor, cache: CacheView
) -> tuple[torch.Tensor, torch.Tensor]:
    """(float32 queries, weights), filled up with zero heads to whole fours; a NaN code in a head
    of q becomes a NaN weight of that head."""
    spare = -q.shape[1] % _HEADS
    if spare:
        q = pad(q.view(torch.uint8), (0, 0, 0, spare)).view(q.dtype)
        weights = pad(weights, (0, spare))
    if q.dtype.itemsize != 1:
        return q.float(), weights
    cache.expect(dialect_of(q.dtype), op="index_logits")
    values, has_nan = half(q.view(torch.uint8), cache.dialect)
    factor = weights * half_factor(cache.dialect)
    return values.float(), factor.masked_fill_(has_nan, torch.nan)


def _keys(
    cache: CacheView, pages: Pages, sequence: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys float32 [S, capacity, d] of each named sequence, and what their scores are multiplied
    by: [S, capacity], NaN for a key that holds a NaN code."""
    offsets = torch.arange(pages.page_rows, device=sequence.device)
    first = pages.table.index_select(0, sequence) * pages.page_rows
    raw = gather(cache, (first.unsqueeze(2) + offsets).flatten(1))
    layout = cache.layout
    if layout.plain:
        keys = raw.view(torch.float32)
        return keys, keys.new_ones(1)
    values, has_nan = half(raw[..., : layout.nope], cache.dialect)
    scale = raw.view(torch.float32)[..., layout.scale_offset // 4] * half_factor(cache.dialect)
    return values.float(), scale.masked_fill_(has_nan, torch.nan)
