"""sparse_attention on a CPU: two ways to lay out keys, one arithmetic, the same bits.

Decode (`single`): every token gathers its own rows; shapes depend on shapes alone and nothing is
read back. Prefill: the rows of neighbouring tokens are decoded once a tile, and each token sees
its own through overlapping views. Runs too short for that go the first way.

A token's keys have one order whatever the batch: a lead of 16 places of which the first is the sink
(a zero row whose score is the sink itself), its window as given, its entries ascending; window and
entries are each padded to a multiple of 16. Absent rows are zero rows whose score is -inf, so what
they hold, NaN included, cannot reach a sum, and more of them at the end change nothing: a softmax
adds zeros lane by lane, and the product with the values goes over blocks of 128 keys, each one
chain of additions. Measured (2026-11-21, AMD EPYC, torch 2.13, MKL, 1, 2 and 8 threads, 1 to 64
heads of 64 to 576): equal bits for every number of tokens and of further 16 keys; not so without
blocks, where MKL splits 208 keys in two.
"""

from dataclasses import dataclass

import torch

from isobath.cache.view import CacheView, Pages
from isobath.ops.torch_rows import blank_, chunk_size, decode_into, gather, rotate_

_LANES = 16
"""Keys come in multiples of a vector register's float32 values."""
_BLOCK = 128
"""Keys of one product with values; up to 192 MKL adds them in one chain."""
_TILE = 64
"""Tokens of a tile: they share 127 + _TILE window rows."""
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
    tokens, _, width = q.shape
    places, total = [_LANES], _LANES + _padded(window_rows.shape[1])
    absent, rows, caches = [window_rows < 0], [window_rows.clamp_min(0)], [window]
    if entries is not None:
        entry_rows, hidden = _entry_rows(entries)
        absent.append(hidden)
        rows.append(entry_rows)
        caches.append(entries.cache)
        places.append(total)
        total += _padded(entry_rows.shape[1])
    keys = torch.empty(tokens, total, width)
    gone = torch.ones(tokens, total, dtype=torch.bool)
    gone[:, 0] = False
    end = 0
    for place, some in zip(places, absent, strict=True):
        keys[:, end:place] = 0.0
        end = place + some.shape[1]
        gone[:, place:end] = some
    keys[:, end:] = 0.0
    _fill(keys, gone, caches, rows, places)
    bias = _bias(gone, q.shape[1])
    bias[:, :, 0] = sink
    scores = torch.baddbmm(bias, q, keys.transpose(1, 2), alpha=scale)
    return _weigh(scores, [keys[:, start:end] for start, end in _spans(places, total)])


def _fill(
    keys: torch.Tensor,
    gone: torch.Tensor,
    caches: list[CacheView],
    rows: list[torch.Tensor],
    places: list[int],
) -> None:
    """Decode rows [T, n] of each cache into keys [T, N, d] at each place, zeros where gone.

    Neighbours of one dialect are decoded together: at one token the number of calls is the cost.
    """
    raw = [gather(*each) for each in zip(caches, rows, strict=True)]
    joined = len(raw) > 1 and places[0] + raw[0].shape[1] == places[1]
    if joined and caches[0].dialect == caches[1].dialect:
        raw = [torch.cat(raw, 1)]
    for lines, cache, place in zip(raw, caches, places, strict=False):
        part = slice(place, place + lines.shape[1])
        blank_(lines, gone[:, part])
        decode_into(keys[:, part], lines, cache)


def _weigh(scores: torch.Tensor, segments: list[torch.Tensor]) -> torch.Tensor:
    """Softmax of scores [T, H, 16 + N], the lead first, over the N values of the segments [T, n, d]
    in blocks: float32 [T, H, d]."""
    weights = torch.softmax(scores, -1)
    start, out = _LANES, None
    for values in segments:
        for begin in range(0, values.shape[1], _BLOCK):
            block = values[:, begin : begin + _BLOCK]
            share = weights[:, :, start : start + block.shape[1]]
            start += block.shape[1]
            out = torch.bmm(share, block) if out is None else out.baddbmm_(share, block)
    assert out is not None, "a window has at least one row"
    return out


def _bias(gone: torch.Tensor, heads: int) -> torch.Tensor:
    """float32 [T, heads, N]: what is added to scores, -inf where gone [T, N]."""
    tokens, count = gone.shape
    return torch.zeros(tokens, heads, count).masked_fill_(gone.unsqueeze(1), -torch.inf)


def _spans(places: list[int], total: int) -> list[tuple[int, int]]:
    """(first, past the last) of each segment, padding included."""
    return list(zip(places, [*places[1:], total], strict=True))


def _padded(count: int) -> int:
    """`count` keys rounded up to whole vector registers."""
    return -(-count // _LANES) * _LANES


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
                args = (q[tile], window, window_rows[tile], some, sink, scale)
                shared = _tile(*args)
                out[tile] = _by_chunk(*args) if shared is None else shared
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
) -> torch.Tensor | None:
    """float32 [n, H, d] for n neighbouring tokens of one sequence, their keys decoded once.

    None where that gives other bits than _by_token(): with a row that is not finite, which must
    reach the tokens that attend it and no others by 0 * NaN, and where windows do not slide by one.
    """
    (tokens, size), width = window_rows.shape, q.shape[2]
    if size % _LANES or not torch.equal(window_rows[1:, :-1], window_rows[:-1, 1:]):
        return None
    line = _decoded(window, torch.cat((window_rows[0], window_rows[1:, -1])))
    slid = line.as_strided((tokens, size, width), (width, width, 1))
    pool, place, hidden = line[:0], None, torch.empty(tokens, 0, dtype=torch.bool)
    if entries is not None:
        pool, place, hidden = _shared_entries(entries)
    if not (line.sum() + pool.sum()).isfinite():
        return None
    step = tokens if place is None else chunk_size(tokens, 4 * width * hidden.shape[1])
    parts = []
    for begin in range(0, tokens, step):
        part = slice(begin, min(begin + step, tokens))
        if place is None:
            own = pool.expand(len(q[part]), -1, -1)
        else:
            own = pool.index_select(0, place[part].reshape(-1)).view(*place[part].shape, width)
        gone = (window_rows[part] < 0, hidden[part])
        parts.append(_attend(q[part], (slid[part], own), gone, sink, scale))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _attend(
    q: torch.Tensor,
    segments: tuple[torch.Tensor, torch.Tensor],
    gone: tuple[torch.Tensor, torch.Tensor],
    sink: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """float32 [n, H, d] over segments of keys [n, m, d], those that are not gone [n, m]."""
    tokens, heads, _ = q.shape
    lead = torch.full((tokens, heads, _LANES), -torch.inf)
    lead[:, :, 0] = sink
    scores = [
        torch.baddbmm(_bias(absent, heads), q, keys.transpose(1, 2), alpha=scale)
        for keys, absent in zip(segments, gone, strict=True)
    ]
    return _weigh(torch.cat((lead, *scores), 2), list(segments))


def _decoded(cache: CacheView, rows: torch.Tensor) -> torch.Tensor:
    """float32 [N, d]: rows of a cache, -1 a zero row."""
    raw = gather(cache, rows.clamp_min(0))
    blank_(raw, rows < 0)
    out = torch.empty(len(rows), cache.layout.width)
    decode_into(out, raw, cache)
    return out


def _shared_entries(
    entries: _Entries,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Of tokens of one sequence: (their decoded entries [m, d], where in them each token's own are
    [n, k] or None for all in order, which of these are absent: bool)."""
    visible, selected, place = entries.visible, entries.selected, None
    if selected is None:
        union = torch.arange(_padded(int(visible.max())), device=visible.device)
        hidden = union >= visible.unsqueeze(1)
        union = torch.where(union < visible.max(), union, -1)
    else:
        spare = _padded(selected.shape[1]) - selected.shape[1]
        own = torch.nn.functional.pad(selected, (0, spare), value=-1)
        union, place = torch.unique(own, return_inverse=True)
        hidden = own < 0
    rows = entries.pages.rows(entries.sequence[0], union.clamp_min(0))
    return _decoded(entries.cache, torch.where(union >= 0, rows, -1)), place, hidden
