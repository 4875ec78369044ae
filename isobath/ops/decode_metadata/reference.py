"""decode_metadata in plain terms: one lane, one place at a time, angles turned in fp64."""

import torch

from isobath.ops.decode_metadata import DecodeRows, EntryRows

TOKENS = 128
"""Of a page."""


def decode_metadata(
    lanes: torch.Tensor,
    due: tuple[torch.Tensor, ...],
    table: torch.Tensor,
    freqs_window: torch.Tensor,
    freqs_compressed: torch.Tensor,
    *,
    out: DecodeRows,
) -> None:
    size = out.window_rows.shape[1]
    for t, (_, position, slot, page) in enumerate(lanes.T.tolist()):
        real = slot >= 0
        out.sequence[t] = slot if real else 0
        out.keep_tokens[t] = t if real else -1
        for i in range(size):
            q = position - size + 1 + i
            out.window_rows[t, i] = slot * size + q % size if real and q >= 0 else -1
        out.window_slots[t] = slot * size + position % size if real else -1
        out.cos_sin_window[t] = _turn(position, freqs_window)
        out.cos_sin_compressed[t] = _turn(position, freqs_compressed)
        if real:
            table[slot, position // TOKENS] = page
        for one in out.entries:
            ring = one.pool_rows.shape[1]
            one.visible[t] = (position + 1) // one.ratio if real else 0
            one.keep_rows[t] = slot * ring + position % ring if real else -1
    for one, chosen in zip(out.entries, due, strict=True):
        for e, t in enumerate(chosen.tolist()):
            _entry(one, e, t, lanes[:, t].tolist(), freqs_compressed)


def _entry(one: EntryRows, e: int, t: int, lane: list[int], freqs: torch.Tensor) -> None:
    _, position, slot, page = lane
    ring, rows = one.pool_rows.shape[1], TOKENS // one.ratio
    if slot < 0 or (position + 1) % one.ratio:
        one.pool_rows[e] = -1
        one.entry_rows[e] = -1
        one.cos_sin[e] = _turn(0, freqs)
        return
    one.entry_rows[e] = page * rows + position // one.ratio % rows
    one.cos_sin[e] = _turn(position + 1 - one.ratio, freqs)
    for i in range(ring):
        q = position + 1 - ring + i
        row = t if q == position else -2 - (slot * ring + q % ring)
        one.pool_rows[e, i] = row if q >= 0 else -1


def _turn(position: int, freqs: torch.Tensor) -> torch.Tensor:
    angle = (torch.tensor(position, dtype=torch.float32) * freqs).double()
    return torch.cat((angle.cos(), angle.sin())).float()
