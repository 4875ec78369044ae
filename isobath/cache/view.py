"""CacheView: the only form in which an op sees a cache. Bytes, their geometry and their dialect.

`write_rows` and `read_rows` are the plain meaning of a row: quantise and place, gather and decode.
References use them; kernels do the same in one pass and are judged against them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.cache.layout import RowLayout
from isobath.cache.tag import Tag, tag_of
from isobath.errors import DialectMismatch, LayoutMismatch
from isobath.numerics import fp8, ue8m0
from isobath.numerics.dialect import Dialect


@dataclass(frozen=True, slots=True)
class CacheView:
    """Rows of one cache buffer of one layer.

    bytes: uint8 [rows, layout.row_bytes], contiguous. dialect: what the FP8 bytes mean (of no
    effect on a plain layout). revision: of the model whose rows they are, "" outside a pool.
    """

    bytes: torch.Tensor
    layout: RowLayout
    dialect: Dialect
    revision: str = ""

    def __post_init__(self) -> None:
        shape, row_bytes = tuple(self.bytes.shape), self.layout.row_bytes
        if len(shape) != 2 or shape[1] != row_bytes or self.bytes.dtype != torch.uint8:
            raise LayoutMismatch(
                f"CacheView: layout {self.layout.version} needs uint8 [rows, {row_bytes}]",
                found=f"{self.bytes.dtype} {list(shape)}",
                effect="rows would be read at another row's bytes",
                do="allocate the buffer from the layout that reads it",
            )

    @property
    def tag(self) -> Tag:
        """What the bytes mean."""
        return tag_of(self.layout, self.dialect, self.revision)

    def expect(self, dialect: Dialect, *, op: str) -> None:
        """Raise DialectMismatch unless the bytes speak `dialect`."""
        if not self.layout.plain and self.dialect != dialect:
            raise DialectMismatch(
                f"{op}(cache=): expected {dialect}, got {self.dialect}",
                found=f"a cache of layout {self.layout.version} tagged {self.dialect}",
                effect=f"read as {dialect} every value would be off by a factor of two",
                do="write and read a cache in one dialect",
            )


@dataclass(frozen=True, slots=True)
class Pages:
    """Where the compressed entries of each sequence are: entry j of sequence s is row
    table[s, j // page_rows] * page_rows + j % page_rows of the cache.

    table: int64 [S, P] page numbers, lines of which may be apart (take stride(0)). page_rows: rows
    of one page. Page 0 holds the null row.
    """

    table: torch.Tensor
    page_rows: int

    @property
    def capacity(self) -> int:
        """Entries that a row of the table can name."""
        return self.table.shape[1] * self.page_rows

    def rows(self, sequence: torch.Tensor, entry: torch.Tensor) -> torch.Tensor:
        """Cache rows of entries (int64, broadcast against `sequence`); entries must be >= 0."""
        page = self.table[sequence, entry // self.page_rows]
        return page * self.page_rows + entry % self.page_rows


def allocate(
    rows: int, layout: RowLayout, dialect: Dialect, device: torch.device, revision: str = ""
) -> CacheView:
    """A cache of `rows` rows filled with NaN, so that reading an unwritten row is loud."""
    raw = torch.empty(rows, layout.row_bytes, dtype=torch.uint8, device=device)
    cache = CacheView(raw, layout, dialect, revision)
    poison(cache)
    return cache


def poison(cache: CacheView) -> None:
    """Fill every row with NaN."""
    raw, layout = cache.bytes, cache.layout
    if layout.plain:
        raw.view(torch.float32).fill_(float("nan"))
    else:
        raw.fill_(cache.dialect.quiet_nan)
        raw[:, layout.rope_offset :].fill_(0xFF)  # bf16 NaN, UE8M0 NaN and fp32 NaN alike


def write_rows(cache: CacheView, rows: torch.Tensor, values: torch.Tensor) -> None:
    """Quantise values [N, width] by the layout and store them at rows int64 [N]; -1: dropped."""
    layout, keep = cache.layout, rows >= 0
    rows, values = rows[keep], values[keep]
    if layout.plain:
        cache.bytes.view(torch.float32)[rows] = values.float()
        return
    packed = torch.zeros(len(rows), layout.row_bytes, dtype=torch.uint8, device=values.device)
    q = fp8.quantize(values[:, : layout.nope], cache.dialect, (1, layout.quant_block))
    packed[:, : layout.nope] = q.data.view(torch.uint8)
    rope = values[:, layout.nope :].to(torch.bfloat16).contiguous()
    packed[:, layout.rope_offset : layout.scale_offset] = rope.view(torch.uint8)
    scale = q.scale
    if layout.scale_bytes == 4:  # flattened first: a size-1 dimension may have any stride
        scale = ue8m0.decode(q.scale).reshape(-1).view(torch.uint8)
        scale = scale.view(len(rows), 4 * layout.num_scales)
    end = layout.scale_offset + layout.num_scales * layout.scale_bytes
    packed[:, layout.scale_offset : end] = scale
    cache.bytes[rows] = packed


def read_rows(cache: CacheView, rows: torch.Tensor) -> torch.Tensor:
    """Gather and decode rows: int64 of any shape [...] -> float32 [..., width]; all >= 0."""
    layout = cache.layout
    raw = cache.bytes[rows]
    if layout.plain:
        return raw.view(torch.float32)
    values = raw[..., : layout.nope].contiguous().view(cache.dialect.dtype).float()
    end = layout.scale_offset + layout.num_scales * layout.scale_bytes
    scale = raw[..., layout.scale_offset : end].contiguous()
    decoded = ue8m0.decode(scale) if layout.scale_bytes == 1 else scale.view(torch.float32)
    values = values * decoded.repeat_interleave(layout.quant_block, -1)
    rope = raw[..., layout.rope_offset : layout.scale_offset].contiguous().view(torch.bfloat16)
    return torch.cat((values, rope.float()), -1)


def copy_rows(cache: CacheView, source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy rows of a cache to other rows of it, bytes as they are; int64 [N] each, disjoint."""
    cache.bytes[target] = cache.bytes[source]
