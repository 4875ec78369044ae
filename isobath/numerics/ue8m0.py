"""UE8M0 block scales: one byte b means 2**(b - 127); byte 255 is NaN.

Scales are chosen and decoded by exponent-bit arithmetic, never by log2: one ulp above a power of
two a floating log2 rounds the wrong way. Byte 0 is 2**-127, an fp32 subnormal, and 255 is NaN; the
usual `b << 23` gets both wrong. Source: OCP Microscaling Formats Specification 1.0, section 5.4.
"""

from __future__ import annotations

import torch

BIAS = 127
NAN_BYTE = 255
_MANTISSA_BITS = 23
_MANTISSA_MASK = (1 << _MANTISSA_BITS) - 1


def decode(scale: torch.Tensor) -> torch.Tensor:
    """Scale bytes (uint8, any shape) -> float32 powers of two, NaN for byte 255."""
    bits = scale.to(torch.int32) << _MANTISSA_BITS
    bits = torch.where(scale == 0, 1 << (_MANTISSA_BITS - 1), bits)
    bits = torch.where(scale == NAN_BYTE, 0x7FC00000, bits)
    return bits.to(torch.int32).view(torch.float32)


def reciprocal(scale: torch.Tensor) -> torch.Tensor:
    """Scale bytes -> float32 1 / decode(scale), exact: 2**(127 - b) is byte 254 - b; NaN stays."""
    inverse = 254 - scale.to(torch.int32)
    return decode(torch.where(scale == NAN_BYTE, NAN_BYTE, inverse).to(torch.uint8))


def choose(amax: torch.Tensor, quant_max: float) -> torch.Tensor:
    """The smallest power-of-two scale that brings `amax` to at most `quant_max`.

    amax: float32, normal and positive (clamp it first), any shape. quant_max: 448, 224 or 6.
    Returns uint8 bytes, 255 where amax is NaN or infinite. Exact: with amax = m * 2**k and
    quant_max = q * 2**p (1 <= m, q < 2) the exponent is k - p, plus one if m > q.
    """
    bits = amax.view(torch.int32)
    limit = torch.tensor(quant_max, dtype=torch.float32).view(torch.int32).item()
    exponent = (bits >> _MANTISSA_BITS) - (int(limit) >> _MANTISSA_BITS)
    exponent += (bits & _MANTISSA_MASK) > (int(limit) & _MANTISSA_MASK)
    byte = (exponent + BIAS).clamp_(0, NAN_BYTE - 1)
    return torch.where(amax.isfinite(), byte, NAN_BYTE).to(torch.uint8)
