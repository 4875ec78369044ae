"""Opcodes that few kernels hold, one instruction a kernel, against Python's integers.

SCALAR: a, b are the 64-bit sources, s and t their low words; d is the old destination (b), SCC is 1
before. An entry gives the result and SCC after, None where it stays 1. VECTOR: three 32-bit words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isobath.emulator import UnsupportedInstruction, launch
from tests.support import triton_assembly as kernels

WORD, LONG = 2**32 - 1, 2**64 - 1


def signed(value: int, bits: int = 32) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def field(value: int, offset: int, width: int) -> int:
    return value >> offset & ((1 << width) - 1)


def ones(width: int) -> int:
    return (1 << width) - 1


def reversed_bits(value: int, bits: int) -> int:
    return int(f"{value:0{bits}b}"[::-1], 2)


def first(value: int, bits: int) -> int:
    """Position of the lowest one; -1 without one."""
    return (value & -value).bit_length() - 1 if value & ones(bits) else -1


def leading(value: int, bits: int) -> int:
    return bits - value.bit_length() if value else -1


def signs(value: int, bits: int) -> int:
    """Bits at the top that equal the sign; -1 if all do."""
    number = signed(value, bits)
    return leading(~number if number < 0 else number, bits)


Scalar = Callable[[int, int, int, int], tuple[int, Any]]
# text -> (result, SCC); 64-bit results are cut to the destination's width by the test.
SCALAR: dict[str, Scalar] = {
    "s_cmov_b32 s24, s20": lambda a, b, s, t: (s | b & ~WORD, None),
    "s_cmov_b64 s[24:25], s[20:21]": lambda a, b, s, t: (a, None),
    "s_cmovk_i32 s24, 0x8001": lambda a, b, s, t: (0xFFFF8001 | b & ~WORD, None),
    "s_brev_b32 s24, s20": lambda a, b, s, t: (reversed_bits(s, 32), None),
    "s_brev_b64 s[24:25], s[20:21]": lambda a, b, s, t: (reversed_bits(a, 64), None),
    "s_andn2_b32 s24, s20, s22": lambda a, b, s, t: (r := s & ~t & WORD, r != 0),
    "s_orn2_b32 s24, s20, s22": lambda a, b, s, t: (r := (s | ~t) & WORD, r != 0),
    "s_nand_b32 s24, s20, s22": lambda a, b, s, t: (r := ~(s & t) & WORD, r != 0),
    "s_nor_b32 s24, s20, s22": lambda a, b, s, t: (r := ~(s | t) & WORD, r != 0),
    "s_xnor_b32 s24, s20, s22": lambda a, b, s, t: (r := ~(s ^ t) & WORD, r != 0),
    "s_andn2_b64 s[24:25], s[20:21], s[22:23]": lambda a, b, s, t: (r := a & ~b & LONG, r != 0),
    "s_orn2_b64 s[24:25], s[20:21], s[22:23]": lambda a, b, s, t: (r := (a | ~b) & LONG, r != 0),
    "s_nand_b64 s[24:25], s[20:21], s[22:23]": lambda a, b, s, t: (r := ~(a & b) & LONG, r != 0),
    "s_nor_b64 s[24:25], s[20:21], s[22:23]": lambda a, b, s, t: (r := ~(a | b) & LONG, r != 0),
    "s_xnor_b64 s[24:25], s[20:21], s[22:23]": lambda a, b, s, t: (r := ~(a ^ b) & LONG, r != 0),
    "s_min_u32 s24, s20, s22": lambda a, b, s, t: (min(s, t), s < t),
    "s_max_u32 s24, s20, s22": lambda a, b, s, t: (max(s, t), s >= t),
    "s_min_i32 s24, s20, s22": lambda a, b, s, t: (
        min(signed(s), signed(t)), signed(s) < signed(t)),
    "s_max_i32 s24, s20, s22": lambda a, b, s, t: (
        max(signed(s), signed(t)), signed(s) >= signed(t)),
    "s_abs_i32 s24, s20": lambda a, b, s, t: (abs(signed(s)), s != 0),
    "s_absdiff_i32 s24, s20, s22": lambda a, b, s, t: (
        r := abs(signed(s - t)), r & WORD != 0),
    "s_bfe_u32 s24, s20, 0x70005": lambda a, b, s, t: (r := field(s, 5, 7), r != 0),
    "s_bfe_i32 s24, s20, 0x70005": lambda a, b, s, t: (r := signed(field(s, 5, 7), 7), r != 0),
    "s_bfe_u64 s[24:25], s[20:21], 0x21001d": lambda a, b, s, t: (r := field(a, 29, 33), r != 0),
    "s_bfe_i64 s[24:25], s[20:21], 0x21001d": lambda a, b, s, t: (
        r := signed(field(a, 29, 33), 33), r != 0),
    "s_bfm_b32 s24, s20, s22": lambda a, b, s, t: (ones(s & 31) << (t & 31), None),
    "s_bfm_b64 s[24:25], s20, s22": lambda a, b, s, t: (ones(s & 63) << (t & 63), None),
    "s_bcnt0_i32_b32 s24, s20": lambda a, b, s, t: (r := 32 - s.bit_count(), r != 0),
    "s_bcnt1_i32_b32 s24, s20": lambda a, b, s, t: (r := s.bit_count(), r != 0),
    "s_bcnt0_i32_b64 s24, s[20:21]": lambda a, b, s, t: (r := 64 - a.bit_count(), r != 0),
    "s_bcnt1_i32_b64 s24, s[20:21]": lambda a, b, s, t: (r := a.bit_count(), r != 0),
    "s_ff0_i32_b32 s24, s20": lambda a, b, s, t: (first(~s & WORD, 32), None),
    "s_ff1_i32_b32 s24, s20": lambda a, b, s, t: (first(s, 32), None),
    "s_ff0_i32_b64 s24, s[20:21]": lambda a, b, s, t: (first(~a & LONG, 64), None),
    "s_ff1_i32_b64 s24, s[20:21]": lambda a, b, s, t: (first(a, 64), None),
    "s_flbit_i32_b32 s24, s20": lambda a, b, s, t: (leading(s, 32), None),
    "s_flbit_i32_b64 s24, s[20:21]": lambda a, b, s, t: (leading(a, 64), None),
    "s_flbit_i32 s24, s20": lambda a, b, s, t: (signs(s, 32), None),
    "s_flbit_i32_i64 s24, s[20:21]": lambda a, b, s, t: (signs(a, 64), None),
    "s_sext_i32_i8 s24, s20": lambda a, b, s, t: (signed(s, 8), None),
    "s_sext_i32_i16 s24, s20": lambda a, b, s, t: (signed(s, 16), None),
    "s_pack_ll_b32_b16 s24, s20, s22": lambda a, b, s, t: (s & 0xFFFF | (t & 0xFFFF) << 16, None),
    "s_pack_lh_b32_b16 s24, s20, s22": lambda a, b, s, t: (s & 0xFFFF | t >> 16 << 16, None),
    "s_pack_hh_b32_b16 s24, s20, s22": lambda a, b, s, t: (s >> 16 | t >> 16 << 16, None),
    "s_bitset0_b32 s24, s20": lambda a, b, s, t: (t & ~(1 << (s & 31)), None),
    "s_bitset1_b32 s24, s20": lambda a, b, s, t: (t | 1 << (s & 31), None),
    "s_bitset0_b64 s[24:25], s20": lambda a, b, s, t: (b & ~(1 << (s & 63)), None),
    "s_bitset1_b64 s[24:25], s20": lambda a, b, s, t: (b | 1 << (s & 63), None),
    "s_mul_hi_u32 s24, s20, s22": lambda a, b, s, t: (s * t >> 32, None),
    "s_mul_hi_i32 s24, s20, s22": lambda a, b, s, t: (signed(s) * signed(t) >> 32, None),
    "s_mulk_i32 s24, 0xfffd": lambda a, b, s, t: (t * -3, None),
    "s_addk_i32 s24, 0x7fff": lambda a, b, s, t: (
        t + 0x7FFF, not -(2**31) <= signed(t) + 0x7FFF < 2**31),
    "s_add_i32 s24, s20, s22": lambda a, b, s, t: (
        s + t, not -(2**31) <= signed(s) + signed(t) < 2**31),
    "s_sub_i32 s24, s20, s22": lambda a, b, s, t: (
        s - t, not -(2**31) <= signed(s) - signed(t) < 2**31),
    "s_addc_u32 s24, s20, s22": lambda a, b, s, t: (s + t + 1, s + t + 1 > WORD),
    "s_subb_u32 s24, s20, s22": lambda a, b, s, t: (s - t - 1, s < t + 1),
    "s_lshl3_add_u32 s24, s20, s22": lambda a, b, s, t: (s * 8 + t, s * 8 + t > WORD),
    "s_lshl_b64 s[24:25], s[20:21], s22": lambda a, b, s, t: (
        r := a << (t & 63) & LONG, r != 0),
    "s_ashr_i64 s[24:25], s[20:21], s22": lambda a, b, s, t: (
        r := signed(a, 64) >> (t & 63), r != 0),
    "s_bitcmp1_b64 s[20:21], s22": lambda a, b, s, t: (b, bool(a >> (t & 63) & 1)),
    "s_cmp_lg_u64 s[20:21], s[22:23]": lambda a, b, s, t: (b, a != b),
}  # fmt: skip


def halves(value: int) -> tuple[int, int]:
    return value & 0xFFFF, value >> 16


def both(value: int, change: Callable[[int], int]) -> int:
    low, high = (change(half) & 0xFFFF for half in halves(value))
    return low | high << 16


def short(value: int) -> int:
    return signed(value, 16)


Vector = Callable[[int, int, int], int]
VECTOR: dict[str, Vector] = {
    "v_add_i32 $0, $1, $2": lambda a, b, c: a + b,
    "v_sub_i32 $0, $1, $2": lambda a, b, c: a - b,
    "v_sub_i32 $0, $1, $2 clamp": lambda a, b, c: max(
        -(2**31), min(2**31 - 1, signed(a) - signed(b))),
    "v_add_u32 $0, $1, $2 clamp": lambda a, b, c: min(a + b, WORD),
    "v_mul_hi_u32_u24 $0, $1, $2": lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 32,
    "v_mul_hi_i32_i24 $0, $1, $2": lambda a, b, c: signed(a, 24) * signed(b, 24) >> 32,
    "v_mad_i32_i24 $0, $1, $2, $3": lambda a, b, c: signed(a, 24) * signed(b, 24) + c,
    "v_xnor_b32 $0, $1, $2": lambda a, b, c: ~(a ^ b),
    "v_bfm_b32 $0, $1, $2": lambda a, b, c: ones(a & 31) << (b & 31),
    "v_bfi_b32 $0, $1, $2, $3": lambda a, b, c: a & b | ~a & c,
    "v_alignbyte_b32 $0, $1, $2, $3": lambda a, b, c: (a << 32 | b) >> 8 * (c & 3),
    "v_alignbit_b32 $0, $1, $2, $3": lambda a, b, c: (a << 32 | b) >> (c & 31),
    "v_min3_u32 $0, $1, $2, $3": lambda a, b, c: min(a, b, c),
    "v_med3_u32 $0, $1, $2, $3": lambda a, b, c: sorted((a, b, c))[1],
    "v_med3_i32 $0, $1, $2, $3": lambda a, b, c: sorted(map(signed, (a, b, c)))[1],
    "v_ffbl_b32 $0, $1": lambda a, b, c: first(a, 32),
    "v_ffbh_u32 $0, $1": lambda a, b, c: leading(a, 32),
    "v_ffbh_i32 $0, $1": lambda a, b, c: signs(a, 32),
    "v_sad_u32 $0, $1, $2, $3": lambda a, b, c: abs(a - b) + c,
    "v_add_i16 $0, $1, $2": lambda a, b, c: a + b & 0xFFFF,
    "v_max3_u16 $0, $1, $2, $3": lambda a, b, c: max(x & 0xFFFF for x in (a, b, c)),
    "v_min3_i16 $0, $1, $2, $3": lambda a, b, c: min(map(short, (a, b, c))) & 0xFFFF,
    "v_med3_i16 $0, $1, $2, $3": lambda a, b, c: sorted(map(short, (a, b, c)))[1] & 0xFFFF,
    "v_mad_u32_u16 $0, $1, $2, $3": lambda a, b, c: (a & 0xFFFF) * (b & 0xFFFF) + c,
    "v_mad_i32_i16 $0, $1, $2, $3": lambda a, b, c: short(a) * short(b) + c,
    "v_mad_legacy_u16 $0, $1, $2, $3": lambda a, b, c: a * b + c & 0xFFFF,
    "v_cvt_pk_u16_u32 $0, $1, $2": lambda a, b, c: min(a, 0xFFFF) | min(b, 0xFFFF) << 16,
    "v_cvt_pk_i16_i32 $0, $1, $2": lambda a, b, c: (
        max(-32768, min(32767, signed(a))) & 0xFFFF
        | (max(-32768, min(32767, signed(b))) & 0xFFFF) << 16),
    "v_dot2_u32_u16 $0, $1, $2, $3": lambda a, b, c: (
        sum(p * q for p, q in zip(halves(a), halves(b), strict=True)) + c),
    "v_dot2_i32_i16 $0, $1, $2, $3": lambda a, b, c: (
        sum(short(p) * short(q) for p, q in zip(halves(a), halves(b), strict=True)) + c),
    "v_dot4_i32_i8 $0, $1, $2, $3": lambda a, b, c: sum(
        signed(a >> k, 8) * signed(b >> k, 8) for k in (0, 8, 16, 24)) + c,
    "v_dot4_u32_u8 $0, $1, $2, $3": lambda a, b, c: sum(
        (a >> k & 255) * (b >> k & 255) for k in (0, 8, 16, 24)) + c,
    "v_dot8_u32_u4 $0, $1, $2, $3": lambda a, b, c: sum(
        (a >> k & 15) * (b >> k & 15) for k in range(0, 32, 4)) + c,
    "v_lshl_or_b32 $0, $1, $2, $3": lambda a, b, c: a << (b & 31) | c,
    "v_add_lshl_u32 $0, $1, $2, $3": lambda a, b, c: (a + b & WORD) << (c & 31),
    "v_xad_u32 $0, $1, $2, $3": lambda a, b, c: (a ^ b) + c,
    "v_bfe_u32 $0, $1, $2, $3": lambda a, b, c: field(a, b & 31, c & 31),
    "v_bfe_i32 $0, $1, $2, $3": lambda a, b, c: (
        signed(field(signed(a), b & 31, c & 31), c & 31) if c & 31 else 0),
    # A constant with a point is a float32 to packed integers, which take either half of it.
    "v_pk_add_u16 $0, $1, 0.5 op_sel:[0,1]": lambda a, b, c: both(a, lambda x: x + 0x3F00),
    "v_pk_max_u16 $0, $1, -4.0 op_sel:[0,1]": lambda a, b, c: both(a, lambda x: max(x, 0xC080)),
    "v_pk_sub_i16 $0, $1, 2.0": lambda a, b, c: a & 0xFFFF | ((a >> 16) - 0x4000 & 0xFFFF) << 16,
}  # fmt: skip


KEEPS_HALF = re.compile(r"v_(add|max3|min3|med3)_[iu]16")
"""Their upper half is what the register held before."""


def words(count: int, seed: int) -> np.ndarray:
    """Random words, small numbers, and the edges of a word."""
    rng = np.random.default_rng(seed)
    edges = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 0x8000, 0x7FFF, 31], np.uint64)
    drawn = rng.integers(0, 2**32, count, dtype=np.uint64)
    small = rng.integers(0, 40, count, dtype=np.uint64)
    return np.choose(rng.integers(0, 3, count), [drawn, small, rng.choice(edges, count)]).astype(
        np.uint32
    )


@pytest.mark.parametrize("text", SCALAR)
def test_scalar_opcode(text: str) -> None:
    x, y = (words(48, seed).reshape(24, 2) for seed in (1, 2))
    out = np.zeros((24, 3), np.int32)
    launch(kernels.scalar, 24, x.view(np.int32), y.view(np.int32), out, TEXT=text, num_warps=1,
           checks="none")  # fmt: skip
    wide = "s[24:25]" in text
    for (s, high), (t, more), (r0, r1, flag) in zip(
        x.tolist(), y.tolist(), out.tolist(), strict=True
    ):
        a, b = high << 32 | s, more << 32 | t
        result, carry = SCALAR[text](a, b, s, t)
        want = result & LONG if wide else result & WORD | b & ~WORD
        assert (r0 & WORD | (r1 & WORD) << 32, bool(flag)) == (
            want,
            True if carry is None else carry,
        ), (text, hex(a), hex(b))


@pytest.mark.parametrize("text", VECTOR)
def test_vector_opcode(text: str) -> None:
    x, y, z = (words(128, seed) for seed in (3, 4, 5))
    out = np.zeros(128, np.int32)
    views = [a.view(np.int32) for a in (x, y, z)]
    launch(kernels.vector, 1, *views, out, B=128, TEXT=text, num_warps=1, checks="none")
    for a, b, c, got in zip(x.tolist(), y.tolist(), z.tolist(), out.tolist(), strict=True):
        mask = 0xFFFF if KEEPS_HALF.match(text) else WORD
        assert got & mask == VECTOR[text](a, b, c) & mask, (text, hex(a), hex(b), hex(c))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("v_mov_b32 $0, $1\n.long 0xbf800000", ".long"),
        ("v_mov_b32 $0, $1\n1:\ns_cbranch_vccnz 1b", "s_cbranch_vccnz"),
        ("v_cvt_pk_u8_f32 $0, $1, $2, $3", "v_cvt_pk_u8_f32"),
        ("tbuffer_load_format_x $0, off, s[0:3], 0", "tbuffer_load_format_x"),
    ],
)
def test_what_is_not_understood_in_inline_assembly_raises(text: str, name: str) -> None:
    x = np.zeros(64, np.int32)
    with pytest.raises(UnsupportedInstruction, match=re.escape(name)):
        launch(kernels.vector, 1, x, x, x, x.copy(), B=64, TEXT=text, num_warps=1, checks="none")
