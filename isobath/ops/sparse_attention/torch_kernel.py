"""sparse_attention on a CPU: two loops over one arithmetic.

Decode (`single`): every token gathers its own rows, one batched product each for scores and
values; shapes depend on shapes alone and nothing is read back. Prefill: neighbouring tokens share
most of their rows, so tiles of them attend the union of their rows under a mask. Short runs among
prefill chunks are decoded the first way.

The sink is one more key: a zero row whose score is the sink itself. Absent rows are zero rows whose
score is -inf, so what they hold, NaN included, cannot reach a sum.
"""

from dataclasses import dataclass

import torch

from isobath.cache.view import CacheView, Pages
from isobath.ops.torch_rows import blank_, chunk_size, decode_into, gather, rotate_

_TILE = 64
"""Tokens of a tile: the union has 127 + _TILE window rows. 2000 tokens take 71, 153 and 81 ms (no,
ratio-4, ratio-128 entries) at 64; 32, 48, 96 and 128 are within 10 % or slower (4 heads of 512, one
thread of a busy AMD EPYC, 2026-11-21, best of 9)."""
_SHORT = 8
"""Runs of fewer tokens gather rows token by token."""


@dataclass(frozen=True, slots=True)
class _Entries:
    """The compressed half of the call, of all tokens or of some."""

    cache: CacheView
    pages: Pages
    sequence: torch.Tensor
    visible: torch.Tensor
    selected: torch.Tensor | None

    @property
    def count(self) -> int:
        """Entries looked at for each token."""
        return self.pages.capacity if self.selected is None else self.selected.shape[1]

    def of(self, tokens: torch.Tensor | slice) -> "_Entries":
        chosen = None if self.selected is None else self.selected[tokens]
        return _Entries(self.cache, self.pages, self.sequence[tokens], self.visible[tokens], chosen)


def sparse_attention(
    q: torch.Tensor,
    window: CacheView,
    compressed: CacheView | None,
    sink: torch.Tensor,
    cos_sin: torch.Tensor,
    *,
    window_rows: torch.Tensor,
    pages: Pages | None,
    sequence: torch.Tensor,
    visible: torch.Tensor | None,
    selected: torch.Tensor | None,
    scale: float,
    single: bool,
) -> torch.Tensor:
    entries = None
    if compressed is not None:
        assert pages is not None and visible is not None
        entries = _Entries(compressed, pages, sequence, visible, selected)
    if single:
        out = _by_chunk(q.float(), window, window_rows, entries, sink, scale)
    else:
        out = _by_run(q.float(), window, window_rows, sequence, entries, sink, scale)
    return rotate_(out, cos_sin, inverse=True).to(q.dtype)


def _by_chunk(
    q: torch.Tensor,
    window: CacheView,
    window_rows: torch.Tensor,
    entries: _Entries | None,
    sink: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """_by_token() for so many tokens at a time that their keys stay small."""
    tokens, _, width = q.shape
    keys_each = window_rows.shape[1] + (entries.count if entries else 0)
    size = chunk_size(tokens, 4 * width * keys_each)
    if size >= tokens:
        return _by_token(q, window, window_rows, entries, sink, scale)
    out = torch.empty_like(q)
    for start in range(0, tokens, size):
        part = slice(start, start + size)
        some = entries.of(part) if entries else None
        out[part] = _by_token(q[part], window, window_rows[part], some, sink, scale)
    return out


def _by_token(
    q: torch.Tensor,
    window: CacheView,
    window_rows: torch.Tensor,
    entries: _Entries | None,
    sink: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """float32 [T, H, d] before the rotation; every token over its own rows."""
    tokens, heads, _ = q.shape
    absent, rows, caches = [window_rows < 0], [window_rows.clamp_min(0)], [window]
    if entries is not None:
        entry_rows, hidden = _entry_rows(entries)
        absent.append(hidden)
        rows.append(entry_rows)
        caches.append(entries.cache)
    gone = torch.cat(absent, 1) if len(absent) > 1 else absent[0]
    keys = _keys(caches, rows, gone)
    bias = torch.zeros(tokens, heads, keys.shape[1])
    bias[:, :, :-1].masked_fill_(gone.unsqueeze(1), -torch.inf)
    bias[:, :, -1] = sink
    scores = torch.baddbmm(bias, q, keys.transpose(1, 2), alpha=scale)
    return torch.bmm(torch.softmax(scores, -1), keys)


def _keys(caches: list[CacheView], rows: list[torch.Tensor], absent: torch.Tensor) -> torch.Tensor:
    """float32 [T, N + 1, d]: rows [T, n] of each cache one after another, then a zero row.

    Caches of one dialect are decoded together: at one token the number of calls is the cost.
    """
    raw = [gather(*each) for each in zip(caches, rows, strict=True)]
    lines = torch.cat(raw, 1) if len(raw) > 1 else raw[0]
    blank_(lines, absent)
    tokens, count, _ = lines.shape
    keys = torch.empty(tokens, count + 1, caches[0].layout.width)
    keys[:, count] = 0.0
    first = rows[0].shape[1] if caches[0].dialect != caches[-1].dialect else count
    decode_into(keys[:, :first], lines[:, :first], caches[0])
    if first < count:
        decode_into(keys[:, first:count], lines[:, first:], caches[-1])
    return keys


def _entry_rows(entries: _Entries) -> tuple[torch.Tensor, torch.Tensor]:
    """(cache rows, absent), both [T, n], of each token's compressed entries."""
    table, size = entries.pages.table.index_select(0, entries.sequence), entries.pages.page_rows
    chosen = entries.selected
    if chosen is None:
        rows = (table.mul_(size).unsqueeze(2) + torch.arange(size)).flatten(1)
        return rows, torch.arange(entries.pages.capacity) >= entries.visible.unsqueeze(1)
    safe = chosen.clamp_min(0)
    page = table.gather(1, torch.div(safe, size, rounding_mode="floor"))
    return page.mul_(size).add_(safe % size), chosen < 0


def _by_run(
    q: torch.Tensor,
    window: CacheView,
    window_rows: torch.Tensor,
    sequence: torch.Tensor,
    entries: _Entries | None,
    sink: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """float32 [T, H, d] before the rotation; runs of one sequence's tokens in tiles."""
    out = torch.empty_like(q)
    short: list[int] = []
    begin = 0
    for length in torch.unique_consecutive(sequence, return_counts=True)[1].tolist():
        end = begin + length
        if length < _SHORT:
            short.extend(range(begin, end))
        else:
            for start in range(begin, end, _TILE):
                tile = slice(start, min(start + _TILE, end))
                some = entries.of(tile) if entries else None
                out[tile] = _tile(q[tile], window, window_rows[tile], some, sink, scale)
        begin = end
    if short:
        index = torch.tensor(short, device=q.device)
        some = entries.of(index) if entries else None
        out[index] = _by_chunk(q[index], window, window_rows[index], some, sink, scale)
    return out


def _tile(
    q: torch.Tensor,
    window: CacheView,
    window_rows: torch.Tensor,
    entries: _Entries | None,
    sink: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """float32 [n, H, d] for n neighbouring tokens of one sequence over the union of their rows."""
    tokens, heads, width = q.shape
    union, allowed = _union(window_rows)
    rows, caches = [union], [window]
    if entries is not None:
        entry_rows, entries_allowed = _entry_union(entries)
        rows.append(entry_rows)
        caches.append(entries.cache)
        allowed = torch.cat((allowed, entries_allowed), 1)
    absent = (torch.cat(rows) < 0).unsqueeze(0)
    keys = _keys(caches, [r.clamp_min(0).unsqueeze(0) for r in rows], absent)[0]
    count = allowed.shape[1]
    # A row that is not finite must reach the tokens that attend it, and no others by 0 * NaN.
    lost = keys.sum(1).isfinite().logical_not_()
    keys.masked_fill_(lost.unsqueeze(1), 0.0)
    hit = allowed.logical_and(lost[:count]).any(1)
    scores = torch.mm(q.flatten(0, 1), keys.T).mul_(scale).view(tokens, heads, count + 1)
    scores[:, :, :count].masked_fill_(allowed.logical_not_().unsqueeze(1), -torch.inf)
    scores[:, :, count] = sink
    out = torch.mm(torch.softmax(scores, -1).flatten(0, 1), keys).view(tokens, heads, width)
    return out.masked_fill_(hit.view(-1, 1, 1), torch.nan)


def _union(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct values of rows [n, w], and bool [n, values] telling which each line names; -1 may be
    among the values but is named by none."""
    union, place = torch.unique(rows, return_inverse=True)
    named = torch.zeros(len(rows), len(union), dtype=torch.bool, device=rows.device)
    named.scatter_(1, place, True)
    return union, named.logical_and_(union >= 0)


def _entry_union(entries: _Entries) -> tuple[torch.Tensor, torch.Tensor]:
    """(cache rows [m], -1 for none; bool [n, m]) for tokens of one sequence."""
    visible = entries.visible
    if entries.selected is None:
        union = torch.arange(int(visible.max()), device=visible.device)
        allowed = union < visible.unsqueeze(1)
    else:
        union, allowed = _union(entries.selected)
    rows = entries.pages.rows(entries.sequence[0], union.clamp_min(0))
    return torch.where(union >= 0, rows, -1), allowed
