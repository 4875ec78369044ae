"""2 / pi to 1201 bits, as v_trig_preop_f64 hands it out for the reduction of large angles.

The digits are computed here, by Machin's formula in integers; no table is copied.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from isobath.emulator.bits import Array, u64

BITS, SEGMENT = 1201, 53


def _arctan_of_inverse(n: int, one: int) -> int:
    """one * arctan(1 / n)."""
    term = total = one // n
    k, sign = 3, -1
    while term:
        term //= n * n
        total += sign * (term // k)
        k, sign = k + 2, -sign
    return total


@cache
def two_over_pi_bits() -> int:
    """floor(2**1201 * 2 / pi)."""
    guard = 64
    one = 1 << (BITS + guard)
    pi = 4 * (4 * _arctan_of_inverse(5, one) - _arctan_of_inverse(239, one))
    return (one * one * 2 // pi) >> guard


@cache
def _segment(shift: int, scaled: bool) -> float:
    top = (two_over_pi_bits() << shift) & ((1 << BITS) - 1)
    return math.ldexp(top >> (BITS - SEGMENT), -SEGMENT - shift + (128 if scaled else 0))


def two_over_pi(angle: Array, segment: Array) -> Array:
    """53 bits of 2 / pi, from the place that an angle of this exponent needs; float64."""
    angle, segment = np.broadcast_arrays(angle, segment)
    exponent = ((np.ascontiguousarray(angle).view(u64) >> u64(52)) & u64(2047)).astype(np.int64)
    shift = (segment & 31).astype(np.int64) * SEGMENT + np.maximum(exponent - 1077, 0)
    out = np.empty(angle.shape)
    for at in np.ndindex(angle.shape):
        out[at] = _segment(int(shift[at]), bool(exponent[at] >= 1968))
    return out
