"""decode_metadata: every index and angle of a decode step, from four integers a lane.

A decode step has one token a sequence. Its static buffers are allocated once; this op fills them in
place on the device, so that a captured step needs one copy from the host and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


@dataclass(frozen=True, slots=True)
class EntryRows:
    """What the compressors of one ratio read; T lanes, E entries that may come due.

    ratio: 4 or 128. visible, keep_rows: int64 [T]. pool_rows: int64 [E, n], n = 8 for ratio 4, 128
    for ratio 128. entry_rows: int64 [E]. cos_sin: float32 [E, R]. See compress_insert.
    """

    ratio: int
    visible: torch.Tensor
    keep_rows: torch.Tensor
    pool_rows: torch.Tensor
    entry_rows: torch.Tensor
    cos_sin: torch.Tensor


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """What all layers read. sequence, window_slots, keep_tokens: int64 [T]. window_rows: int64
    [T, W]. cos_sin_window, cos_sin_compressed: float32 [T, R]. entries: one record a ratio."""

    sequence: torch.Tensor
    window_slots: torch.Tensor
    keep_tokens: torch.Tensor
    window_rows: torch.Tensor
    cos_sin_window: torch.Tensor
    cos_sin_compressed: torch.Tensor
    entries: tuple[EntryRows, ...]


class DecodeMetadata(Protocol):
    """lanes: int64 [4, T], lines may be apart: token id, position, slot, and the page that holds
    the position; a padding lane is (-1, 0, -1, 0). due: for each ratio int64 [E], the lanes whose
    token may complete a window, distinct. table: int64 [S, P], page numbers by slot; row 0 belongs
    to nobody and stays zero. freqs_window, freqs_compressed: float32 [R / 2], angular frequencies.

    Writes table[slot, position // 128] = page and every element of `out`. With p the position:

    - sequence: slot, 0 for padding. keep_tokens: the lane itself, -1 for padding.
    - window_rows[t, i]: slot * W + q % W of the position q = p - W + 1 + i, -1 where q < 0 or for
      padding. window_slots: the last of them.
    - cos_sin: cosines, then sines, of the float32 product position * frequency.
    - visible: (p + 1) // ratio, 0 for padding. keep_rows: slot * n + p % n, -1 for padding.
    - entry e of lane t = due[e] exists if ratio divides p + 1 and t is no padding: entry_rows =
      page * rows + p // ratio % rows, rows = 128 / ratio; pool_rows[e, i] for the position
      q = p + 1 - n + i: -1 where q < 0, the lane t itself for q = p, else -2 - (slot * n + q % n);
      cos_sin at position p + 1 - ratio. One that does not exist: -1, -1, and cos_sin at 0.

    Returns None; reads nothing back, and no shape depends on a value.
    """

    def __call__(
        self,
        lanes: torch.Tensor,
        due: tuple[torch.Tensor, ...],
        table: torch.Tensor,
        freqs_window: torch.Tensor,
        freqs_compressed: torch.Tensor,
        *,
        out: DecodeRows,
    ) -> None: ...


def observe(result: Any, args: Arguments) -> Mapping[str, torch.Tensor]:
    """The table and each buffer; integers one a row, so that each is judged by itself."""
    out: DecodeRows = args["out"]
    seen = {
        "table": args["table"],
        "sequence": out.sequence,
        "window_slots": out.window_slots,
        "keep_tokens": out.keep_tokens,
        "window_rows": out.window_rows,
        "cos_sin_window": out.cos_sin_window,
        "cos_sin_compressed": out.cos_sin_compressed,
    }
    for one in out.entries:
        for name in ("visible", "keep_rows", "pool_rows", "entry_rows", "cos_sin"):
            seen[f"{name}_{one.ratio}"] = getattr(one, name)
    return {n: t if t.is_floating_point() else t.reshape(-1, 1) for n, t in seen.items()}


OP = Op(
    "decode_metadata",
    signature=DecodeMetadata,
    # Two float32 cosines of one angle, each within 4 units of 2^-24, in rows of norm sqrt(R / 2);
    # integers of the cases are below 2^20, so one that is off by one is off by more.
    agree=Relative(2**-20),
    must=("deterministic", "graph_safe"),
    writes=("table", "out"),
    observe=observe,
    backends=("triton", "torch"),
    source="row arithmetic of cache/pool.py; DeepSeek-V4 report, compressed sparse attention",
)
