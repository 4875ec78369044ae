"""Floating-point functions that the opcode tables name, element by element, rounded as gfx942 does.

Arithmetic is IEEE with denormals and round to nearest even. Transcendental opcodes are modelled as
correctly rounded (hardware: about one ulp); exp and log flush float32 denormals. A fused
multiply-add is computed in the next wider format with the inexact part folded into the last bit
(round to odd), so that the one final rounding is right.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from isobath.emulator.bits import Array, i32, i64, u16, u32, u64

f16, f32, f64 = np.float16, np.float32, np.float64
_SMALLEST_NORMAL = f32(2.0**-126)


def wide(a: Array) -> Array:
    return a.astype(f64)


def rounded(a: Array) -> Array:
    return a.astype(f32)


def half(a: Array) -> Array:
    """float16 values of the low 16 bits of a uint32 array."""
    return a.astype(u16).view(f16)


def fma64(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float16 or float32 in float64, rounded to odd: rounds once more correctly."""
    product = a.astype(f64) * b.astype(f64)
    addend = c.astype(f64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.view(i64)
    wrong = (error != 0) & ((bits & 1) == 0) & np.isfinite(total)
    if wrong.any():
        away = np.where((error > 0) == (total > 0), 1, -1)
        total = np.where(wrong, (bits + away).view(f64), total)
    return total


def fma(a: Array, b: Array, c: Array) -> Array:
    """float32 fused multiply-add.

    The float64 sum already rounds correctly unless it lies exactly between two float32 (or where
    float32 is denormal); only then the discarded part decides.
    """
    total = a.astype(f64) * b.astype(f64) + c.astype(f64)
    tie = (total.view(u64) & 0x1FFFFFFF) == 0x10000000
    small = np.abs(total) < 2.0**-125
    if tie.any() or (small.any() and (total[small] != 0).any()):
        return fma64(a, b, c).astype(f32)
    return total.astype(f32)


def fma_f64(a: Array, b: Array, c: Array) -> Array:
    """float64 fused multiply-add by exact products and sums (Boldo and Melquiond, 2008)."""
    a, b, c = (np.ascontiguousarray(x) for x in np.broadcast_arrays(a, b, c))
    high, low = _two_product(a, b)
    mid, low_error = _two_sum(c, low)
    top, mid_error = _two_sum(high, mid)
    tail, tail_error = _two_sum(low_error, mid_error)
    bits = tail.view(i64)
    wrong = (tail_error != 0) & ((bits & 1) == 0)
    away = np.where((tail_error > 0) == (tail > 0), 1, -1)
    result = top + np.where(wrong, (bits + away).view(f64), tail)
    size = np.maximum(np.abs(a * b), np.abs(c))
    extreme = (size > 2.0**960) | (np.abs(result) < 2.0**-900) | (np.abs(a) > 2.0**990)
    extreme |= np.abs(b) > 2.0**990
    for at in zip(*np.nonzero(extreme | ~np.isfinite(result)), strict=True):
        result[at] = _exact_fma(float(a[at]), float(b[at]), float(c[at]))
    return result


def _exact_fma(a: float, b: float, c: float) -> float:
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        return float(f64(a) * f64(b) + f64(c))
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return float(f64(a) * f64(b) + f64(c))
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, error


def _halves(a: Array) -> tuple[Array, Array]:
    scaled = a * 134217729.0
    high = scaled - (scaled - a)
    return high, a - high


def flush(a: Array) -> Array:
    """float32 denormals to zero of the same sign."""
    return np.where(np.abs(a) < _SMALLEST_NORMAL, np.copysign(f32(0), a), a)


def larger(a: Array, b: Array) -> Array:
    """v_max: the number where one is NaN; +0 is larger than -0."""
    result = np.fmax(a, b)
    if not result.all():  # two zeros differ in their sign at most
        result = np.where((a == 0) & (b == 0), a + b, result)
    return result


def smaller(a: Array, b: Array) -> Array:
    """v_min: the number where one is NaN; -0 is smaller than +0."""
    result = np.fmin(a, b)
    if not result.all():
        result = np.where((a == 0) & (b == 0), -(-a - b), result)
    return result


def median(a: Array, b: Array, c: Array) -> Array:
    """v_med3: the middle value; the smallest of the others when one is NaN."""
    any_nan = np.isnan(a) | np.isnan(b) | np.isnan(c)
    middle = larger(smaller(larger(a, b), c), smaller(a, b))
    return np.where(any_nan, smaller(smaller(a, b), c), middle)


def fraction(a: Array) -> Array:
    """a - floor(a), below one."""
    below_one = np.nextafter(a.dtype.type(1), a.dtype.type(0))
    return np.minimum(a - np.floor(a), below_one)


def scale_by_power(a: Array, power: Array) -> Array:
    """a * 2**power of float16 or float32, rounded once."""
    return np.ldexp(a.astype(f64), np.clip(power, -400, 400)).astype(a.dtype)


def mantissa(a: Array) -> Array:
    """v_frexp_mant: in [0.5, 1); infinities and NaN as they are."""
    return np.where(np.isfinite(a), np.frexp(a)[0], a)


def exponent(a: Array) -> Array:
    """v_frexp_exp: zero for infinities and NaN."""
    return np.where(np.isfinite(a), np.frexp(a)[1], 0).astype(i32)


def to_u32(a: Array) -> Array:
    """Truncate; saturate; NaN is 0."""
    cut = np.clip(np.trunc(a.astype(f64)), 0, 4294967295.0)
    return np.where(np.isnan(a), 0, cut).astype(u64).astype(u32)


def to_i32(a: Array) -> Array:
    cut = np.clip(np.trunc(a.astype(f64)), -2147483648.0, 2147483647.0)
    return np.where(np.isnan(a), 0, cut).astype(i64).astype(i32)


def half_towards_zero(a: Array) -> Array:
    """float32 to float16, truncated; overflow gives the largest finite value."""
    near = a.astype(f16)
    past = np.abs(near.astype(f32)) > np.abs(a)
    return np.where(past, (near.view(u16) - u16(1)).view(f16), near)


def turn_sin(a: Array) -> Array:
    """sin(2 pi a)."""
    return np.sin(2 * np.pi * _turn(a)).astype(f32)


def turn_cos(a: Array) -> Array:
    return np.cos(2 * np.pi * _turn(a)).astype(f32)


def _turn(a: Array) -> Array:
    return a.astype(f64) - np.rint(a.astype(f64))


def _exponent_bits(a: Array) -> Array:
    if a.dtype == f64:
        return ((a.view(u64) >> u64(52)) & u64(2047)).astype(i32)
    return ((a.view(u32) >> 23) & 255).astype(i32)


def _denormal(a: Array) -> Array:
    return (np.abs(a) < np.finfo(a.dtype).smallest_normal) & (a != 0)


def divide_scale(value: Array, denominator: Array, numerator: Array) -> tuple[Array, Array]:
    """v_div_scale of float32 or float64: (scaled value, lanes whose quotient must be rescaled).

    Where both 1 / denominator and the quotient are denormal the published text scales the (huge)
    denominator up, to infinity; then LLVM's division could not be right. It is scaled down here.
    """
    arrays = np.broadcast_arrays(value, denominator, numerator)
    value, denominator, numerator = (np.ascontiguousarray(x) for x in arrays)
    kind = value.dtype.type
    nothing = (numerator == 0) | (denominator == 0)
    if _far_from_edges(denominator, numerator, nothing):
        return np.where(nothing, kind(np.nan), value), np.zeros(value.shape, bool)
    step, far, low = (64, 96, 23) if kind is f32 else (128, 768, 53)
    up, down = np.ldexp(value, step), np.ldexp(value, -step)
    reciprocal, quotient = _ratio_is_denormal(denominator, numerator)
    raw = u32 if kind is f32 else u64
    is_den = value.view(raw) == denominator.view(raw)
    is_num = value.view(raw) == numerator.view(raw)
    gap = _exponent_bits(numerator) - _exponent_bits(denominator)
    cases = [
        (nothing, np.full_like(value, np.nan), False),
        (gap >= far, np.where(is_den, up, value), True),
        (_denormal(denominator), up, False),
        (reciprocal & quotient, np.where(is_den, down, value), True),
        (reciprocal, down, False),
        (quotient, np.where(is_num, up, value), True),
        (_exponent_bits(numerator) <= low, up, False),
    ]
    result, flagged = value.copy(), np.zeros(value.shape, bool)
    done = np.zeros(value.shape, bool)
    for condition, outcome, flag in cases:
        fresh = condition & ~done
        result = np.where(fresh, outcome, result)
        flagged |= fresh & flag
        done |= condition
    return result, flagged


def _far_from_edges(denominator: Array, numerator: Array, nothing: Array) -> bool:
    """Whether neither a number nor a quotient needs scaling, where both are not zero."""
    low, high, far = (32, 222, 64) if denominator.dtype == f32 else (128, 1900, 512)
    below, above = _exponent_bits(denominator), _exponent_bits(numerator)
    near = (np.minimum(below, above) > low) & (np.maximum(below, above) < high)
    return bool((near & (np.abs(below - above) < far) | nothing).all())


def _ratio_is_denormal(denominator: Array, numerator: Array) -> tuple[Array, Array]:
    """(whether 1 / denominator is denormal, whether numerator / denominator is)."""
    if denominator.dtype == f64:
        return _denormal(1.0 / denominator), _denormal(numerator / denominator)
    tiny = 2.0**-126
    reciprocal = 1.0 / denominator.astype(f64)
    quotient = numerator.astype(f64) * reciprocal
    return (
        (np.abs(reciprocal) < tiny) & (reciprocal != 0),
        (np.abs(quotient) < tiny) & (quotient != 0),
    )


def divide_fma(a: Array, b: Array, c: Array, scaled: Array) -> Array:
    """v_div_fmas: a fused multiply-add, scaled back before its only rounding."""
    if a.dtype == f64 or b.dtype == f64:
        plain = fma_f64(a, b, c)
        power = np.where(_exponent_bits(np.broadcast_to(c, plain.shape)) > 1023, 128, -128)
        return np.where(scaled, np.ldexp(plain, power), plain)
    if not scaled.any():
        return fma(a, b, c)
    total = fma64(a, b, c)
    large = _exponent_bits(np.ascontiguousarray(np.broadcast_to(c, total.shape))) > 127
    factor = np.where(scaled, np.where(large, 2.0**64, 2.0**-64), 1.0)
    return (total * factor).astype(f32)


def divide_fixup(quotient: Array, denominator: Array, numerator: Array) -> Array:
    """v_div_fixup: the special cases of numerator / denominator."""
    kind = quotient.dtype.type
    negative = np.signbit(denominator) ^ np.signbit(numerator)
    usual = (denominator != 0) & (numerator != 0) & np.isfinite(denominator + numerator)
    if usual.all() and not np.isnan(quotient).any():
        return np.where(negative, -np.abs(quotient), np.abs(quotient))
    sign = np.where(negative, kind(-1), kind(1))
    infinite, zero = np.copysign(kind(np.inf), sign), np.copysign(kind(0), sign)
    result = np.copysign(np.abs(quotient), sign)
    result = np.where(np.isnan(quotient), infinite, result)
    result = np.where((denominator == 0) | np.isinf(numerator), infinite, result)
    result = np.where(np.isinf(denominator) | (numerator == 0), zero, result)
    invalid = np.isnan(numerator) | np.isnan(denominator)
    invalid |= (numerator == 0) & (denominator == 0)
    invalid |= np.isinf(numerator) & np.isinf(denominator)
    return np.where(invalid, kind(np.nan), result)


def is_class(a: Array, classes: Array) -> Array:
    """v_cmp_class: whether the value is of one of the ten IEEE classes in the bit set."""
    fields = {f16: (u16, 1 << 9), f32: (u32, 1 << 22), f64: (u64, 1 << 51)}
    raw, quiet = fields[a.dtype.type]
    negative = np.signbit(a)
    nan, inf, zero, small = np.isnan(a), np.isinf(a), a == 0, _denormal(a)
    kind = np.where(negative, 3, 8)
    kind = np.where(small, np.where(negative, 4, 7), kind)
    kind = np.where(zero, np.where(negative, 5, 6), kind)
    kind = np.where(inf, np.where(negative, 2, 9), kind)
    signalling = np.where((a.view(raw) & raw(quiet)) != 0, 1, 0)
    kind = np.where(nan, signalling, kind)
    return ((classes >> kind.astype(u32)) & 1).astype(bool)


def dot2_f16(a: Array, b: Array, c: Array) -> Array:
    """v_dot2_f32_f16: both products and the addend exact in float64, rounded once."""
    low = half(a).astype(f64) * half(b).astype(f64)
    high = half(a >> 16).astype(f64) * half(b >> 16).astype(f64)
    return (low + high + c).astype(f32)
