"""Byte geometry of cache rows, as pure integers: nothing here knows about torch.

A row is one cached vector. A packed row of the main caches (window, C4, C128) holds 512 values:

    byte 0 ............ 447 | 448 ............ 575 | 576 .... 582 | 583
    448 FP8 e4m3 (no rope)  | 64 bf16 (rope part)  | 7 UE8M0      | 0     = 584 bytes

and a packed row of the indexer's cache 128 values:

    byte 0 ............ 127 | 128 .. 131
    128 FP8 e4m3            | fp32 scale (a power of two)                = 132 bytes

A plain row holds the same values as fp32 and rounds nothing; `numerics="exact"` uses it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


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
        fields = (self.width, self.rope, self.quant_block, self.scale_bytes, self.plain)
        return hashlib.sha256(repr(fields).encode()).hexdigest()[:12]


def kv_row(head_dim: int, rope_dim: int, *, plain: bool = False) -> RowLayout:
    """Layout of a window, C4 or C128 row: 584 bytes for head_dim 512, rope_dim 64."""
    nope = head_dim - rope_dim
    return RowLayout(head_dim, rope_dim, 64 if nope % 64 == 0 else nope, 1, plain)


def index_row(index_dim: int, *, plain: bool = False) -> RowLayout:
    """Layout of an indexer row: 132 bytes for index_dim 128."""
    return RowLayout(index_dim, 0, index_dim, 4, plain)
