"""decode_metadata with torch operators on any device: in place, about forty calls, no host read."""

from functools import cache as memoize

import torch

from isobath.cache.pool import PAGE_TOKENS
from isobath.ops.decode_metadata import DecodeRows, EntryRows


def decode_metadata(
    lanes: torch.Tensor,
    due: tuple[torch.Tensor, ...],
    table: torch.Tensor,
    freqs_window: torch.Tensor,
    freqs_compressed: torch.Tensor,
    *,
    out: DecodeRows,
) -> None:
    if lanes.shape[1] == 0:
        return
    _, position, slot, page = lanes.unbind(0)
    is_padding = slot < 0
    torch.clamp_min(slot, 0, out=out.sequence)
    page_index = torch.div(position, PAGE_TOKENS, rounding_mode="floor")
    table.index_put_((out.sequence, page_index), page)  # padding puts 0 at [0, 0]
    out.keep_tokens.copy_(_upto(len(position), position.device)).masked_fill_(is_padding, -1)
    size = out.window_rows.shape[1]
    place = position.unsqueeze(1) + _last(size, position.device)
    torch.remainder(place, size, out=out.window_rows)
    out.window_rows.add_((slot * size).unsqueeze(1))
    out.window_rows.masked_fill_((place | slot.unsqueeze(1)) < 0, -1)
    out.window_slots.copy_(out.window_rows[:, -1])
    _turn(position, freqs_window, out.cos_sin_window)
    _turn(position, freqs_compressed, out.cos_sin_compressed)
    for one, chosen in zip(out.entries, due, strict=True):
        torch.div(position + 1, one.ratio, rounding_mode="floor", out=one.visible)
        ring = one.pool_rows.shape[1]
        torch.remainder(position, ring, out=one.keep_rows)
        one.keep_rows.add_(slot * ring).masked_fill_(is_padding, -1)
        if len(chosen):
            _entries(lanes.index_select(1, chosen), chosen, freqs_compressed, one)


def _entries(
    lanes: torch.Tensor, chosen: torch.Tensor, freqs: torch.Tensor, one: EntryRows
) -> None:
    """The part of `one` that has a row for each due lane; lanes: theirs, int64 [4, E]."""
    _, position, slot, page = lanes.unbind(0)
    ring, rows = one.pool_rows.shape[1], PAGE_TOKENS // one.ratio
    end = position + 1
    exists = (end % one.ratio == 0) & (slot >= 0)
    absent = exists.logical_not()
    entry = torch.div(position, one.ratio, rounding_mode="floor")
    torch.add(entry % rows, page, alpha=rows, out=one.entry_rows)
    one.entry_rows.masked_fill_(absent, -1)
    _turn((end - one.ratio) * exists, freqs, one.cos_sin)
    place = position.unsqueeze(1) + _last(ring, position.device)
    torch.remainder(place, ring, out=one.pool_rows)
    one.pool_rows.add_((slot * ring + 2).unsqueeze(1)).neg_()
    one.pool_rows[:, -1] = chosen
    one.pool_rows.masked_fill_((place < 0) | absent.unsqueeze(1), -1)


def _turn(position: torch.Tensor, freqs: torch.Tensor, out: torch.Tensor) -> None:
    """As model/rope.py, bit for bit: whole lines of cosines, then of sines."""
    angle = position.to(torch.float32).unsqueeze(1) * freqs
    torch.cat((angle.cos(), angle.sin()), -1, out=out)


@memoize
def _last(count: int, device: torch.device) -> torch.Tensor:
    """int64 [count]: 1 - count .. 0, the positions up to one, relative to it."""
    return torch.arange(1 - count, 1, device=device)


@memoize
def _upto(count: int, device: torch.device) -> torch.Tensor:
    """int64 [count]: 0 .. count - 1."""
    return torch.arange(count, device=device)
