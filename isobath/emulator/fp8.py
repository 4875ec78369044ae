"""The two FNUZ FP8 formats of gfx942 as tables and rounding: e4m3 (bias 8) and e5m2 (bias 16).

0x80 is the only NaN; there is no infinity and no negative zero. Written from the bit fields alone,
independent of numerics/ and of any library's cast, so that each can be judged against the other
and the emulator runs where torch is absent.
"""

from __future__ import annotations

import numpy as np

from isobath.emulator.bits import Array, u32

NAN = 0x80
OVERFLOW_CLAMPS = 1 << 23
"""MODE.FP16_OVFL: an FP8 conversion that overflows gives the largest value instead of NaN."""


def _values(mantissa_bits: int, bias: int) -> Array:
    """float64 value of each of the 256 codes."""
    out = np.zeros(256)
    for code in range(256):
        field, low = (code & 0x7F) >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
        if field:
            value = (1 + low / 2**mantissa_bits) * 2.0 ** (field - bias)
        else:
            value = low * 2.0 ** (1 - bias - mantissa_bits)
        out[code] = -value if code & 0x80 else value
    out[NAN] = np.nan
    return out


FP8_EXACT, BF8_EXACT = _values(3, 8), _values(2, 16)
FP8_VALUES, BF8_VALUES = FP8_EXACT.astype(np.float32), BF8_EXACT.astype(np.float32)


def _encode(values: Array, x: Array, mode: int) -> Array:
    positive = values[:128]
    middles = (positive[1:] + positive[:-1]) / 2
    exact = x.astype(np.float64)
    size = np.abs(exact)
    code = np.searchsorted(middles, size, "left")
    tie = (code < 127) & (size == middles[np.minimum(code, 126)])
    code = code + (tie & (code & 1 == 1))
    limit = positive[127] + (positive[127] - positive[126]) / 2
    code = np.where(size >= limit, 127 if mode & OVERFLOW_CLAMPS else NAN, code)
    signed = (code > 0) & (code < 128) & np.signbit(exact)
    code = np.where(signed, code | 0x80, code)
    return np.where(np.isnan(exact), NAN, code).astype(u32)


def to_fp8(x: Array, mode: int) -> Array:
    """e4m3 FNUZ codes of float32 values, ties to even, as uint32. mode: the MODE register."""
    return _encode(FP8_EXACT, x, mode)


def to_bf8(x: Array, mode: int) -> Array:
    """e5m2 FNUZ codes of float32 values."""
    return _encode(BF8_EXACT, x, mode)
