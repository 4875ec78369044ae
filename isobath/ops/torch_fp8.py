"""FP8 activation rows in few torch calls: the CPU backends' own quantiser and decoder.

A decode step quantises small rows dozens of times, and each torch call costs 1 to 2 us however
small its tensor, so these say in about fifteen calls what `numerics` says plainly in thirty. The
rule is that of numerics.fp8; the two share no code, and quantize_act's cases compare them exactly.
"""

from __future__ import annotations

import struct

import torch

from isobath.numerics import ue8m0
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, AMAX_FLOOR, Fp8Tensor

_MANTISSA_BITS = 23
_MANTISSA_MASK = (1 << _MANTISSA_BITS) - 1
_EXPONENT_MASK = 0x7F800000
_GROUP = ACTIVATION_BLOCK[1]
_SCALES = ue8m0.decode(torch.arange(256).to(torch.uint8))


def quantize_rows(x: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
    """x: [T, K] of any float dtype, K a multiple of 128 -> Fp8Tensor [T, K] in groups of 128.

    With amax = m * 2**k and quant_max = q * 2**p the scale is 2**(k - p), doubled if m > q: adding
    the largest mantissa minus q's to amax's bits carries into the exponent exactly then.
    """
    tokens, width = x.shape
    groups = x.float().view(tokens, width // _GROUP, _GROUP)
    amax = groups.abs().amax(-1, True).clamp_min_(AMAX_FLOOR)
    bits = amax.view(torch.int32) + _carry(dialect.quant_max)
    scaled = groups / (bits & _EXPONENT_MASK).view(torch.float32)
    limit = dialect.quant_max
    data = scaled.clamp_(-limit, limit).to(dialect.dtype).view(tokens, width)
    byte = torch.where(amax < float("inf"), bits >> _MANTISSA_BITS, ue8m0.NAN_BYTE)
    return Fp8Tensor(data, byte.to(torch.uint8).squeeze(-1), dialect, ACTIVATION_BLOCK)


def decode_rows(x: Fp8Tensor) -> torch.Tensor:
    """Fp8Tensor [T, K] in groups of 128, K a multiple of 128 -> float32 [T, K], exact."""
    tokens, groups = x.scale.shape
    width = groups * _GROUP
    scale = _SCALES.index_select(0, x.scale.view(-1).int()).view(tokens, groups, 1)
    return x.data.float().view(tokens, groups, _GROUP).mul_(scale).view(tokens, width)


def _carry(quant_max: float) -> int:
    """What to add to the bits of amax so that their exponent field is the scale byte."""
    bits: int = struct.unpack("<i", struct.pack("<f", quant_max))[0]
    exponent = (bits >> _MANTISSA_BITS) - ue8m0.BIAS
    return _MANTISSA_MASK - (bits & _MANTISSA_MASK) - (exponent << _MANTISSA_BITS)
