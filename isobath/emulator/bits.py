"""Integer functions that the opcode tables name. Arrays in, arrays of the same shape out.

uint32, int32, uint64 and int64 arrays; a width or position is taken from its low bits as the
hardware does. Counting functions give 0xFFFFFFFF where there is nothing to count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
u8, u16, u32, u64 = np.uint8, np.uint16, np.uint32, np.uint64
i8, i16, i32, i64 = np.int8, np.int16, np.int32, np.int64

NONE = u32(0xFFFFFFFF)
LANES = np.arange(64)
LANES_BELOW_LOW = np.array(
    [[(1 << lane) - 1 if lane < 32 else 0xFFFFFFFF for lane in range(64)]], u32
)
LANES_BELOW_HIGH = np.array(
    [[(1 << (lane - 32)) - 1 if lane >= 32 else 0 for lane in range(64)]], u32
)


def popcount(a: Array) -> Array:
    """Number of set bits of a uint32."""
    a = a - ((a >> 1) & 0x55555555)
    a = (a & 0x33333333) + ((a >> 2) & 0x33333333)
    a = (a + (a >> 4)) & 0x0F0F0F0F
    return (a * u32(0x01010101)) >> 24


def popcount64(a: Array) -> Array:
    """Number of set bits of a uint64, as uint32."""
    return popcount(a.astype(u32)) + popcount((a >> u64(32)).astype(u32))


def reverse_bits(a: Array) -> Array:
    a = ((a >> 1) & 0x55555555) | ((a & 0x55555555) << 1)
    a = ((a >> 2) & 0x33333333) | ((a & 0x33333333) << 2)
    a = ((a >> 4) & 0x0F0F0F0F) | ((a & 0x0F0F0F0F) << 4)
    return a.byteswap()


def reverse_bits64(a: Array) -> Array:
    low, high = a.astype(u32), (a >> u64(32)).astype(u32)
    return pair(reverse_bits(high), reverse_bits(low))


def pair(low: Array, high: Array) -> Array:
    """uint64 from its two uint32 halves."""
    return (high.astype(u64) << u64(32)) | low


def widen(a: Array) -> Array:
    """uint32 to uint64."""
    return a.astype(u64)


def first_one(a: Array) -> Array:
    """Position of the lowest set bit of a uint32."""
    return np.where(a == 0, NONE, popcount((a & (~a + u32(1))) - u32(1)))


def first_one64(a: Array) -> Array:
    """Position of the lowest set bit of a uint64."""
    return np.where(a == 0, NONE, popcount64((a & (~a + u64(1))) - u64(1)))


def leading_zeros(a: Array) -> Array:
    """Zeros above the highest set bit of a uint32."""
    smear = a
    for shift in (1, 2, 4, 8, 16):
        smear = smear | (smear >> shift)
    return np.where(a == 0, NONE, u32(32) - popcount(smear))


def leading_zeros64(a: Array) -> Array:
    low, high = a.astype(u32), (a >> u64(32)).astype(u32)
    below = np.where(low == 0, NONE, u32(32) + leading_zeros(low))
    return np.where(high != 0, leading_zeros(high), below)


def leading_signs(a: Array) -> Array:
    """Copies of the sign bit of an int32, counted from the top; NONE for 0 and -1."""
    return leading_zeros(np.where(a < 0, ~a, a).astype(i32).view(u32))


def leading_signs64(a: Array) -> Array:
    return leading_zeros64(np.where(a < 0, ~a, a).astype(i64).view(u64))


def high_product_u(a: Array, b: Array) -> Array:
    """High half of the 64-bit product of two uint32."""
    return ((a.astype(u64) * b.astype(u64)) >> u64(32)).astype(u32)


def high_product_i(a: Array, b: Array) -> Array:
    """High half of the 64-bit product of two int32."""
    return ((a.astype(i64) * b.astype(i64)) >> i64(32)).astype(i32)


def carries(a: Array, b: Array, carry: Array) -> Array:
    """Whether a + b + carry passes 2**32."""
    return (a.astype(u64) + b.astype(u64) + carry.astype(u64)) >> u64(32) != 0


def borrows(a: Array, b: Array, borrow: Array) -> Array:
    """Whether a - b - borrow is below zero."""
    return a.astype(i64) - b.astype(i64) - borrow.astype(i64) < 0


def shift_add_carries(a: Array, b: Array, shift: int) -> Array:
    """Whether (a << shift) + b passes 2**32."""
    return (a.astype(u64) << u64(shift)) + b.astype(u64) >> u64(32) != 0


def low_mask(width: Array) -> Array:
    """width & 31 ones."""
    return (u32(1) << (width & 31)) - u32(1)


def bit64(position: Array) -> Array:
    return u64(1) << (position & 63).astype(u64)


def bit_mask64(width: Array, position: Array) -> Array:
    """(width & 63) ones at (position & 63)."""
    return (bit64(width) - u64(1)) << (position & 63).astype(u64)


def signed_field(a: Array, offset: Array, width: Array) -> Array:
    """Sign-extended bit field of an int32; width 0 gives 0."""
    start, size = (offset & 31).astype(i32), (width & 31).astype(i32)
    unused = 32 - np.minimum(size, 32 - start)
    field = ((a >> start) << (unused & 31)) >> (unused & 31)
    return np.where(size == 0, i32(0), field).astype(i32)


def scalar_field_u(a: Array, control: Array) -> Array:
    """Bit field of a uint32; control: offset in bits 0-4, width in bits 16-22."""
    size = (control >> 16) & 127
    return (a >> (control & 31)) & np.where(size >= 32, NONE, low_mask(size))


def scalar_field_i(a: Array, control: Array) -> Array:
    size, start = ((control >> 16) & 127).astype(i32), (control & 31).astype(i32)
    unused = 32 - np.minimum(size, 32 - start)
    field = ((a >> start) << (unused & 31)) >> (unused & 31)
    return np.where(size == 0, i32(0), field).astype(i32)


def scalar_field_u64(a: Array, control: Array) -> Array:
    """Bit field of a uint64; control: offset in bits 0-5, width in bits 16-22."""
    size, start = ((control >> 16) & 127).astype(u64), (control & 63).astype(u64)
    mask = np.where(size >= 64, ~u64(0), (u64(1) << np.minimum(size, u64(63))) - u64(1))
    return (a >> start) & mask


def scalar_field_i64(a: Array, control: Array) -> Array:
    size, start = ((control >> 16) & 127).astype(i64), (control & 63).astype(i64)
    unused = 64 - np.minimum(size, 64 - start)
    field = ((a >> start) << (unused & 63)) >> (unused & 63)
    return np.where(size == 0, i64(0), field).astype(i64)


def align_bits(high: Array, low: Array, shift: Array) -> Array:
    """Low 32 bits of (high:low) >> (shift & 31)."""
    return (pair(low, high) >> (shift & 31).astype(u64)).astype(u32)


def permute_bytes(high: Array, low: Array, selector: Array) -> Array:
    """v_perm_b32: each selector byte 0-7 picks a byte of high:low, 8-11 a sign, 12 zero, 13+ FF."""
    if selector.shape[1] == 1 and (selector == selector[0, 0]).all():
        return _permute_alike(high, low, int(selector[0, 0]))
    source = pair(low, high)
    shape = np.broadcast_shapes(source.shape, selector.shape)
    out = np.zeros(shape, u32)
    for k in range(4):
        pick = (selector >> (8 * k)) & 255
        byte = (source >> ((pick & 7) << 3).astype(u64)).astype(u32) & 255
        if (pick >= 8).any():
            sign_at = np.array([15, 31, 47, 63], u64)[np.clip(pick.astype(i64) - 8, 0, 3)]
            sign = ((source >> sign_at) & u64(1)).astype(u32) * u32(255)
            constant = np.where(pick == 12, u32(0), u32(255))
            byte = np.where(pick >= 12, constant, np.where(pick >= 8, sign, byte))
        out |= byte << (8 * k)
    return out


def _permute_alike(high: Array, low: Array, selector: int) -> Array:
    """permute_bytes with one selector for all lanes: neighbouring bytes move together."""
    picks = [selector >> (8 * k) & 255 for k in range(4)]
    out: Array | None = None
    k = 0
    while k < 4:
        size = 1
        while k + size < 4 and picks[k + size] == picks[k] + size and picks[k + size] not in (4, 8):
            size += 1
        pick, mask = picks[k], (1 << 8 * size) - 1
        if pick < 8:
            word, place = (low if pick < 4 else high), 8 * (pick & 3)
            part = (word >> place) & mask if place + 8 * size < 32 else word >> place
        elif pick < 12:
            size, word = 1, (low if pick < 10 else high)
            part = ((word >> (15 if pick % 2 == 0 else 31)) & 1) * u32(255)
        else:
            size, part = 1, np.full((1, 1), 0 if pick == 12 else 255, u32)
        part = part << (8 * k) if k else part
        out = part if out is None else out | part
        k += size
    assert out is not None
    return np.broadcast_to(out, np.broadcast_shapes(high.shape, low.shape))


def saturate_i16(a: Array) -> Array:
    return np.clip(a, -0x8000, 0x7FFF)


def pack_halves(low: Array, high: Array) -> Array:
    """uint32 from the low 16 bits of two integer or float16 arrays."""
    return bits16(low) | (bits16(high) << 16)


def bits16(a: Array) -> Array:
    """The low 16 bits of an integer array, or the bits of a float16 array, as uint32."""
    if a.dtype == np.float16:
        return a.view(u16).astype(u32)
    return a.astype(u32) & 0xFFFF


def _bytes(a: Array, kind: type) -> Array:
    return np.ascontiguousarray(a)[..., None].view(kind).astype(i64)


def dot_i8(a: Array, b: Array) -> Array:
    return (_bytes(a, i8) * _bytes(b, i8)).sum(-1).astype(i32)


def dot_u8(a: Array, b: Array) -> Array:
    return (_bytes(a, u8) * _bytes(b, u8)).sum(-1).astype(u32)


def dot_i16(a: Array, b: Array) -> Array:
    return (_bytes(a, i16) * _bytes(b, i16)).sum(-1).astype(i32)


def dot_u16(a: Array, b: Array) -> Array:
    return (_bytes(a, u16) * _bytes(b, u16)).sum(-1).astype(u32)


def _nibbles(a: Array) -> Array:
    return ((a[..., None] >> np.arange(0, 32, 4, dtype=u32)) & 15).astype(i64)


def dot_u4(a: Array, b: Array) -> Array:
    return (_nibbles(a) * _nibbles(b)).sum(-1).astype(u32)


def dot_i4(a: Array, b: Array) -> Array:
    left, right = ((_nibbles(x) ^ 8) - 8 for x in (a, b))
    return (left * right).sum(-1).astype(i32)


def differences(a: Array, b: Array, kind: type) -> Array:
    """|a - b| of each unsigned byte or half of two words, on a last axis."""
    return np.abs(_bytes(a, kind) - _bytes(b, kind))


def masked_differences(a: Array, b: Array) -> Array:
    """v_msad_u8: the sum of |a - b| over the bytes in which b is not zero."""
    return np.where(_bytes(b, u8) != 0, differences(a, b, u8), 0).sum(-1).astype(u32)


def middles_u8(a: Array, b: Array, up: Array) -> Array:
    """v_lerp_u8: the mean of each byte, rounded up where the byte of `up` is odd."""
    middle = (_bytes(a, u8) + _bytes(b, u8) + (_bytes(up, u8) & 1)) >> 1
    return np.ascontiguousarray(middle.astype(u8)).view(u32)[..., 0]
