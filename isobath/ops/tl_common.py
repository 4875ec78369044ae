"""What the Triton kernels share: UE8M0 scales, FP8 rows, norms and rotation on the device, and on
the host the facts a launcher may ask for.

Device functions work on float32 tiles. The rules are those of numerics (smallest power-of-two
scale, clamp before the cast, ties to even); NaN and infinity are found on integer bits, because a
device's maximum may drop NaN. The dialect arrives as two constexprs, `QUANT_MAX` and `FP8`, from
`fp8_of`.

`target_of` is the only place where a launcher asks about a machine. It does not choose tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import AMAX_FLOOR

FLOOR = tl.constexpr(AMAX_FLOOR)


@dataclass(frozen=True, slots=True)
class LaunchTarget:
    """kind: "cuda", "hip", or "cpu" (Triton's interpreter). compute_units: SMs or CUs."""

    kind: str
    compute_units: int


_assumed: ContextVar[LaunchTarget | None] = ContextVar("assumed_target", default=None)


@contextmanager
def assume(target: LaunchTarget) -> Iterator[None]:
    """Launchers inside choose as they would on `target`, which need not be here."""
    token = _assumed.set(target)
    try:
        yield
    finally:
        _assumed.reset(token)


def target_of(tensor: torch.Tensor) -> LaunchTarget:
    """What the machine that `tensor` lies on is, for a launcher's choice of tiles."""
    return _assumed.get() or _target(tensor.device.type, tensor.device.index or 0)


@cache
def _target(device_type: str, index: int) -> LaunchTarget:
    if device_type == "cpu":
        return LaunchTarget("cpu", 1)
    count = torch.cuda.get_device_properties(index).multi_processor_count
    return LaunchTarget("hip" if torch.version.hip else "cuda", count)


def fp8_of(dialect: Dialect) -> dict[str, Any]:
    """The constexpr arguments by which a kernel knows a dialect: QUANT_MAX and FP8 (tl dtype)."""
    dtype = {"fp8e4nv": tl.float8e4nv, "fp8e4b8": tl.float8e4b8}[dialect.triton_name]
    return {"QUANT_MAX": dialect.quant_max, "FP8": dtype}


def pow2(n: int) -> int:
    """The smallest power of two that is at least n and 1: Triton's tiles have no other extents."""
    return 1 << max(0, n - 1).bit_length()


@triton.constexpr_function
def limit_exponent(quant_max):
    """Exponent of a dialect's quant_max, whose significand is 1.75 in both."""
    exponent = int(quant_max).bit_length() - 1
    assert quant_max == 1.75 * 2**exponent, quant_max
    return exponent


@triton.jit
def magnitude_bits(x):
    """float32 -> int32 that orders magnitudes: zero < finite < infinite < NaN."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def ue8m0_of(amax_bits, QUANT_MAX: tl.constexpr):
    """Largest magnitude_bits() of a block -> int32 UE8M0 byte, 255 for NaN and infinity.

    Adding 0x1FFFFF carries into the exponent exactly when the significand exceeds 1.75.
    """
    LIMIT: tl.constexpr = limit_exponent(QUANT_MAX)
    floor = tl.full([], FLOOR, tl.float32).to(tl.int32, bitcast=True)
    bits = tl.maximum(amax_bits, floor)
    byte = ((bits + 0x1FFFFF) >> 23) - LIMIT
    return tl.where(bits >= 0x7F800000, 255, byte)


@triton.jit
def ue8m0_decode(byte):
    """UE8M0 byte (any integer dtype) -> float32 power of two; NaN for 255."""
    byte = byte.to(tl.int32)
    bits = tl.where(byte == 0, 1 << 22, byte << 23)
    return tl.where(byte == 255, 0x7FC00000, bits).to(tl.float32, bitcast=True)


@triton.jit
def ue8m0_reciprocal(byte):
    """int32 UE8M0 byte as ue8m0_of() gives it (1 .. 253, or 255) -> float32 1 / scale, or NaN."""
    bits = tl.where(byte == 255, 0x7FC00000, (254 - byte) << 23)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def cast_fp8(scaled, QUANT_MAX: tl.constexpr, FP8: tl.constexpr):
    """float32 -> uint8 codes of the dialect: clamp, then round to nearest even."""
    clamped = tl.minimum(tl.maximum(scaled, -QUANT_MAX), QUANT_MAX)
    return clamped.to(FP8).to(tl.uint8, bitcast=True)


@triton.jit
def quantize_groups(x, QUANT_MAX: tl.constexpr, FP8: tl.constexpr):
    """float32 [G, n] -> (uint8 codes [G, n], int32 UE8M0 bytes [G]): one scale a row of the tile.

    A group with NaN or infinity gets the NaN scale.
    """
    byte = ue8m0_of(tl.max(magnitude_bits(x), 1), QUANT_MAX)
    scaled = x * ue8m0_reciprocal(byte)[:, None]
    return cast_fp8(scaled, QUANT_MAX, FP8), byte


@triton.jit
def quantize_row(x, GROUP: tl.constexpr, QUANT_MAX: tl.constexpr, FP8: tl.constexpr):
    """float32 [n] -> (uint8 codes [n], int32 UE8M0 bytes [n // GROUP])."""
    groups: tl.constexpr = x.shape[0] // GROUP
    codes, byte = quantize_groups(tl.reshape(x, [groups, GROUP]), QUANT_MAX, FP8)
    return tl.reshape(codes, [x.shape[0]]), byte


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) in float32."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def turn(a, b, cos, sin):
    """The pair (a, b) turned by an angle; with -sin, turned back."""
    return a * cos - b * sin, a * sin + b * cos
