"""Byte geometry of cache rows, as pure integers: nothing here knows about torch.

A row is one cached vector. A packed row of the main caches (window, C4, C128) holds 512 values:

    byte 0 ............ 447 | 448 ............ 575 | 576 .... 582 | 583
    448 FP8 e4m3 (no rope)  | 64 bf16 (rope part)  | 7 UE8M0      | 0     = 584 bytes

and a packed row of the indexer's cache 128 values:

    byte 0 ............ 127 | 128 .. 131
    128 FP8 e4m3            | fp32 scale (a power of two)                = 132 bytes

A plain row holds the same values as fp32 and rounds nothing; `numerics="exact"` uses it.

Rows make up what a sequence holds: one slot in each layer, and in each compressed layer one page
for 128 tokens. For V4-Flash, in bytes:

    window slot      128 rows x 584                      token p in row p % 128             74,752
    C4 page           32 rows x 584                      tokens 4j .. 4j + 3 in row j       18,688
    index page        32 rows x 132                      the same tokens                     4,224
    C128 page          1 row  x 584                      all 128 tokens                        584
    C4 ring            8 rows x (k 1024 | gate 1024) fp32    token p in row p % 8           65,536
    index ring         8 rows x (k  256 | gate  256) fp32    token p in row p % 8           16,384
    C128 ring        128 rows x (k  512 | gate  512) fp32    token p in row p % 128        524,288

Slots, pages and rings of one kind and layer lie end to end in one buffer, and their rows end to end
in each, so row i of unit u starts at byte (u * rows + i) * row_bytes. That passes 2^31 in a buffer
of more than 2 GiB: row numbers are int64 everywhere, never int32.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where the bytes of one cached vector are.

    width: values in a row. rope: trailing values kept in bf16 (0: none). quant_block: values that
    share a scale. scale_bytes: of one scale (1: UE8M0, 4: fp32). plain: fp32 values, no scale.
    """

    width: int
    rope: int
    quant_block: int
    scale_bytes: int
    plain: bool = False

    @property
    def nope(self) -> int:
        """Values stored in FP8."""
        return self.width - self.rope

    @property
    def num_scales(self) -> int:
        return 0 if self.plain else -(-self.nope // self.quant_block)

    @property
    def rope_offset(self) -> int:
        """First byte of the bf16 part."""
        return self.nope

    @property
    def scale_offset(self) -> int:
        """First byte of the scales."""
        return self.nope + 2 * self.rope

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, padded to a multiple of 4."""
        if self.plain:
            return 4 * self.width
        used = self.scale_offset + self.num_scales * self.scale_bytes
        return -(-used // 4) * 4

    @property
    def version(self) -> str:
        """Hash of the geometry: equal versions read each other's bytes (given the dialect)."""
        return _version(self)


@cache  # a step compares versions
def _version(layout: RowLayout) -> str:
    return hashlib.sha256(repr(astuple(layout)).encode()).hexdigest()[:12]


def kv_row(head_dim: int, rope_dim: int, *, plain: bool = False) -> RowLayout:
    """Layout of a window, C4 or C128 row: 584 bytes for head_dim 512, rope_dim 64."""
    nope = head_dim - rope_dim
    return RowLayout(head_dim, rope_dim, 64 if nope % 64 == 0 else nope, 1, plain)


def index_row(index_dim: int, *, plain: bool = False) -> RowLayout:
    """Layout of an indexer row: 132 bytes for index_dim 128."""
    return RowLayout(index_dim, 0, index_dim, 4, plain)
