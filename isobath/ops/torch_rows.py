"""Cache rows on a CPU for the torch backends: decode by bit tricks, encode by exponent bits.

Owns the fast way to read and write packed rows and to rotate; the plain meaning is cache/view.py,
which the references use. Nothing here reads a value back to the host, and no shape depends on one.

An FP8 code moved to the top of a float16 (sign to the sign, the other seven bits below the highest
exponent bit) is its value times 2^(bias - 15), subnormals included, and always finite; the missing
power of two joins the block scale. So absent rows become exact zeros through a zero scale, and NaN
codes, which would turn into finite numbers, are looked for and given a NaN scale: row by row, which
for a dot product over the row is the same as value by value.

Decoding 200 / 3200 rows of 448 codes, us, one thread of an AMD EPYC (AVX-512), torch 2.13,
2026-11-21, median of 300 / 60: torch's own cast 264 / 4201 (OCP), 121 / 2379 (FNUZ); 256-entry
table by index_select 56 / 988, by embedding 203 / 3737; 65536-entry table of pairs 36 / 671; these
bits through float16 24 / 314 (search for NaN included), through int32 and float32 17 / 222 without
it (int8 and int16 searches: 15 / 194 and 4 / 41; the float32 way would also overflow at scales
above 2^7).
"""

from __future__ import annotations

from functools import cache

import torch

from isobath.cache.layout import RowLayout
from isobath.cache.view import CacheView
from isobath.numerics import ue8m0
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import AMAX_FLOOR

_HALF_BIAS = 15
CHUNK_BYTES = 4 << 20
"""Temporaries beyond this leave the core's cache, and glibc may hand them back to the kernel after
every call: 16 tokens over 192 rows in one piece took 3,500 page faults and 12 ms a call, in two
pieces none and 3.6 ms (busy 2-core AMD EPYC virtual machine, 2026-11-21)."""
_FLOOR_BITS = int(torch.tensor(AMAX_FLOOR).view(torch.int32))
_INFINITY_BITS = 0x7F800000


def chunk_size(count: int, bytes_each: int) -> int:
    """How many of `count` items to work on at a time so that their float32 keys fill CHUNK_BYTES,
    in chunks of nearly equal size; at least 1."""
    pieces = -(-count * bytes_each // CHUNK_BYTES)
    return max(1, -(-count // max(1, pieces)))


@cache
def factors(dialect: Dialect) -> torch.Tensor:
    """float32 [256]: what half() values of a block with scale byte b are multiplied by.

    Infinite from 2^128 on: blocks whose amax exceeds 448 * 2^119 decode to infinity and NaN, not to
    their value. No normed row holds such a number.
    """
    return ue8m0.decode(torch.arange(256, dtype=torch.uint8)) * half_factor(dialect)


@cache
def block_scales(dialect: Dialect) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """By the exponent field of a rounded-up amax: UE8M0 byte (uint8), scale and 1 / scale
    (float32), each [256]; NaN at 255."""
    limit_exponent = int(dialect.quant_max).bit_length() - 1
    assert dialect.quant_max == 1.75 * 2**limit_exponent, dialect
    byte = (torch.arange(256) - limit_exponent).clamp_min_(0)
    byte[255] = ue8m0.NAN_BYTE
    byte = byte.to(torch.uint8)
    return byte, ue8m0.decode(byte), ue8m0.reciprocal(byte)


def half_factor(dialect: Dialect) -> float:
    """The power of two that turns half() values into decoded ones."""
    return float(2.0 ** (_HALF_BIAS - dialect.bias))


def half(codes: torch.Tensor, dialect: Dialect) -> tuple[torch.Tensor, torch.Tensor]:
    """FP8 codes uint8 [..., n] -> (float16 [..., n] values / half_factor, bool [...]: has NaN)."""
    bits = codes.view(torch.int8).to(torch.int16)
    bits <<= 7
    bits &= -0x4080  # 0xBF80: sign, four exponent and three mantissa bits
    if dialect.nan_bytes == (0x80,):
        has_nan = bits.amin(-1) == -0x8000
    else:
        assert dialect.nan_bytes == (0x7F, 0xFF), dialect
        has_nan = (bits & 0x3F80).amax(-1) == 0x3F80
    return bits.view(torch.float16), has_nan


def gather(cache: CacheView, rows: torch.Tensor) -> torch.Tensor:
    """Bytes of rows (int64 [...], >= 0): uint8 [..., row_bytes]."""
    raw = cache.bytes.index_select(0, rows.reshape(-1))
    return raw.view(*rows.shape, cache.bytes.shape[1])


def blank_(raw: torch.Tensor, absent: torch.Tensor) -> None:
    """Zero gathered rows where `absent` (bool [...]), NaN included.

    Zero bytes decode to zeros in any layout and dialect.
    """
    raw.view(torch.int32).bitwise_and_((absent.to(torch.int32) - 1).unsqueeze(-1))


def decode_into(out: torch.Tensor, raw: torch.Tensor, cache: CacheView) -> None:
    """Decode gathered bytes (uint8 [..., row_bytes]) into `out` float32 [..., width].

    cache: whose layout and dialect they have.
    """
    layout = cache.layout
    if layout.plain:
        out.copy_(raw.view(torch.float32))
        return
    values, has_nan = half(raw[..., : layout.nope], cache.dialect)
    nope = out[..., : layout.nope]
    nope.copy_(values)
    factor = _row_factors(raw, layout, cache.dialect, has_nan)
    nope.unflatten(-1, (-1, layout.quant_block)).mul_(factor.unsqueeze(-1))
    if layout.rope:
        rope = raw.view(torch.bfloat16)[..., layout.rope_offset // 2 : layout.scale_offset // 2]
        out[..., layout.nope :] = rope


def _row_factors(
    raw: torch.Tensor, layout: RowLayout, dialect: Dialect, has_nan: torch.Tensor
) -> torch.Tensor:
    """float32 [..., num_scales]: multipliers of half() values, NaN for rows with a NaN code."""
    if layout.scale_bytes == 1:
        start = layout.scale_offset
        index = raw[..., start : start + layout.num_scales].to(torch.int32)
        index.masked_fill_(has_nan.unsqueeze(-1), ue8m0.NAN_BYTE)
        return factors(dialect).index_select(0, index.reshape(-1)).view(index.shape)
    start = layout.scale_offset // 4
    scale = raw.view(torch.float32)[..., start : start + layout.num_scales] * half_factor(dialect)
    return scale.masked_fill_(has_nan.unsqueeze(-1), torch.nan)


def quantize_blocks(x: torch.Tensor, dialect: Dialect) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [..., n], one scale for the last dimension -> (FP8 [..., n], int32 [...] to look the
    scale up in block_scales()).

    The rule of numerics.fp8.quantize in fewer calls: adding 0x1FFFFF carries into the exponent of
    amax exactly when its significand exceeds 1.75, that of 448 and of 224. Blocks whose amax
    exceeds 448 * 2^119 come out as NaN, like infinite ones.
    """
    bits = x.abs().amax(-1).view(torch.int32).clamp_(_FLOOR_BITS, _INFINITY_BITS)
    exponent = (bits + 0x1FFFFF) >> 23
    inverse = block_scales(dialect)[2].index_select(0, exponent.view(-1)).view(exponent.shape)
    scaled = (x * inverse.unsqueeze(-1)).clamp_(-dialect.quant_max, dialect.quant_max)
    return scaled.to(dialect.dtype), exponent


def store(cache: CacheView, rows: torch.Tensor, values: torch.Tensor) -> None:
    """Quantise `values` float32 [N, width] and write them at rows int64 [N]; -1 goes to row 0."""
    layout, rows = cache.layout, rows.clamp_min(0)
    if layout.plain:
        cache.bytes.view(torch.float32).index_copy_(0, rows, values)
        return
    packed = torch.zeros(len(rows), layout.row_bytes, dtype=torch.uint8)
    blocks = values[:, : layout.nope].unflatten(1, (layout.num_scales, layout.quant_block))
    codes, exponent = quantize_blocks(blocks, cache.dialect)
    packed[:, : layout.nope] = codes.view(torch.uint8).flatten(1)
    if layout.rope:
        rope = packed.view(torch.bfloat16)
        rope[:, layout.rope_offset // 2 : layout.scale_offset // 2] = values[:, layout.nope :]
    byte, scale, _ = block_scales(cache.dialect)
    if layout.scale_bytes == 1:
        chosen, target, start = byte, packed, layout.scale_offset
    else:
        chosen, target, start = scale, packed.view(torch.float32), layout.scale_offset // 4
    scales = chosen.index_select(0, exponent.view(-1)).view(exponent.shape)
    target[:, start : start + layout.num_scales] = scales
    cache.bytes.index_copy_(0, rows, packed)


def rotate_(x: torch.Tensor, cos_sin: torch.Tensor, *, inverse: bool = False) -> torch.Tensor:
    """Turn adjacent pairs of the last R values of x (float32 [T, d] or [T, H, d]) in place.

    cos_sin: float32 [T, R]. inverse: turn back. A pair is one complex number: eight calls instead
    of fourteen.
    """
    half_width = cos_sin.shape[-1] // 2
    turn = torch.complex(cos_sin[:, :half_width], cos_sin[:, half_width:])
    turn = turn.conj() if inverse else turn
    pairs = x[..., x.shape[-1] - 2 * half_width :].unflatten(-1, (half_width, 2))
    torch.view_as_complex(pairs).mul_(turn.unsqueeze(1) if x.dim() == 3 else turn)
    return x
