"""Bit-exact accumulation of CDNA3 matrix products, after the published MMA-Sim model.

Products go in groups of 8 (16-bit types) or 16 (FP8), k ascending, and the accumulator joins each
group. Every product of a group is aligned to the group's largest exponent and cut to 24 fractional
bits, towards zero; FP8 adds its even and its odd k apart, cuts both sums down to 24 bits at the
larger exponent, and adds them. The group's sum is then cut down (towards minus infinity) to 31
bits and the accumulator to 24 at the larger of both exponents; the result rounds to nearest even.
FP8 drops an accumulator more than 25 binades below. float32 and float64 are chains of fused
multiply-adds. Denormals are kept. Non-finite results follow float64 arithmetic: unverified.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isobath.emulator.bits import Array, i64
from isobath.emulator.floats import fma, fma_f64

f32, f64 = np.float32, np.float64
SMALLEST_EXPONENT = {"bf16": -126, "f16": -14, "fp8": -7, "bf8": -15}
_ZERO_EXPONENT = -126
_OVERFLOWN = -(10**4)


def significands(x: Array, smallest: int) -> tuple[Array, Array]:
    """x = s * 2**e with 1 <= |s| < 2, or |s| < 1 at the format's smallest exponent."""
    s, e = np.frexp(x)
    s, e = s * 2, e.astype(i64) - 1
    below = e < smallest
    s = np.where(below, np.ldexp(s, np.where(below, e - smallest, 0)), s)
    e = np.where(below, smallest, e)
    return s, np.where(s == 0, _ZERO_EXPONENT, e)


def _aligned_sum(s: Array, e: Array) -> tuple[Array, Array]:
    """(sum of the products cut to 24 bits below the largest exponent, that exponent)."""
    top = e.max(-1)
    cut = np.trunc(np.ldexp(s, 24 + e - top[..., None]))
    return cut.sum(-1) * 2.0**-24, top


def _floor(s: Array, bits: Array) -> Array:
    return np.floor(np.ldexp(s, bits))


def exact_float(a: Array, b: Array, c: Array, kind_a: str, kind_b: str) -> Array:
    """a: [..., M, K], b: [..., N, K], c: [..., M, N] float32 -> float32 [..., M, N]."""
    is_fp8 = kind_a in ("fp8", "bf8")
    group = 16 if is_fp8 else 8
    a, b, total = a.astype(f64), b.astype(f64), c.astype(f64)
    left = significands(a, SMALLEST_EXPONENT[kind_a])
    right = significands(b, SMALLEST_EXPONENT[kind_b])
    usual = float(np.abs(a).max(initial=0.0)) * float(np.abs(b).max(initial=0.0)) < 2.0**127
    by_k = [np.ascontiguousarray(np.moveaxis(x, -1, 0)) for x in (a, b, left[1], right[1])]
    for k in range(0, a.shape[-1], group):
        part = slice(k, k + group)
        if usual and np.isfinite(total).all():
            x, y, exponent_x, exponent_y = (each[part] for each in by_k)
            total = _add_usual_group(x, y, exponent_x, exponent_y, total, is_fp8)
            continue
        product = a[..., :, None, part] * b[..., None, :, part]
        s = left[0][..., :, None, part] * right[0][..., None, :, part]
        e = left[1][..., :, None, part] + right[1][..., None, :, part]
        total = _add_group(product, s, e, total, is_fp8)
    return total.astype(f32)


def _add_usual_group(
    a: Array, b: Array, exponent_a: Array, exponent_b: Array, total: Array, is_fp8: bool
) -> Array:
    """_add_group where nothing overflows and all is finite; k is the first dimension. A product
    that is cut at its group's exponent is the product, exact in float64, cut at a power of two."""
    parts = []
    for k in (slice(0, None, 2), slice(1, None, 2)) if is_fp8 else (slice(None),):
        exponents = zip(exponent_a[k], exponent_b[k], strict=True)
        tops = [x[..., :, None] + y[..., None, :] for x, y in exponents]
        top = np.maximum.reduce(tops)
        factor, cut = _power(24 - top), np.zeros(total.shape)
        for x, y in zip(a[k], b[k], strict=True):
            cut += np.trunc(x[..., :, None] * y[..., None, :] * factor)
        parts.append((cut * 2.0**-24, top))
    group, top = parts[0]
    if is_fp8:
        (even, top_even), (odd, top_odd) = parts
        top = np.maximum(top_even, top_odd)
        group = _floor(even, 24 + top_even - top) + _floor(odd, 24 + top_odd - top)
        group = group * 2.0**-24
    result, joint = _join(group, top, total, is_fp8)
    return (result * _power(joint)).astype(f32).astype(f64)


def _power(n: Array) -> Array:
    """2.0**n, the smallest normal below it."""
    return ((np.clip(n, -1022, 1023) + 1023) << 52).view(f64)


def _join(group: Array, top: Array, total: Array, is_fp8: bool) -> tuple[Array, Array]:
    """The group's sum and the accumulator, both cut at their larger exponent: (sum, exponent)."""
    own, own_top = significands(total, _ZERO_EXPONENT)
    joint = np.maximum(top, own_top)
    cut_group = _floor(group, 31 + top - joint) * 2.0**-31
    cut_own = _floor(own, 24 + own_top - joint) * 2.0**-24
    if is_fp8:
        cut_own = np.where(own_top >= joint - 25, cut_own, 0.0)
    return cut_group + cut_own, joint


def _add_group(product: Array, s: Array, e: Array, total: Array, is_fp8: bool) -> Array:
    overflown = np.abs(product) >= 2.0**128
    s, e = np.where(overflown, 0, s), np.where(overflown, _OVERFLOWN, e)
    if is_fp8:
        (even, top_even), (odd, top_odd) = (
            _aligned_sum(s[..., k::2], e[..., k::2]) for k in (0, 1)
        )
        top = np.maximum(top_even, top_odd)
        group = _floor(even, 24 + top_even - top) + _floor(odd, 24 + top_odd - top)
        group = group * 2.0**-24
    else:
        group, top = _aligned_sum(s, e)
    joined, joint = _join(group, top, total, is_fp8)
    result = np.ldexp(joined, joint)
    up = (overflown & (product > 0)).any(-1)
    down = (overflown & (product < 0)).any(-1)
    result = np.where(up & down, np.nan, np.where(up, np.inf, np.where(down, -np.inf, result)))
    plain = product.sum(-1) + total
    return np.where(np.isfinite(plain), result, plain).astype(f32).astype(f64)


def exact_floats_in_order(a: Array, b: Array, c: Array) -> Array:
    """Chains of fused multiply-adds, k ascending, in the type of c."""
    step: Callable[[Array, Array, Array], Array] = fma if c.dtype == f32 else fma_f64
    total = c
    for k in range(a.shape[-1]):
        left, right = a[..., :, None, k], b[..., None, :, k]
        total = step(np.broadcast_to(left, c.shape), np.broadcast_to(right, c.shape), total)
    return total
