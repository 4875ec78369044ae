"""FP8 activation rows in few calls: the CPU backends' own quantiser and decoder.

A decode step quantises and decodes small rows dozens of times, and a torch call costs 1 to 3 us
however small its tensor; numpy's cost a third of that on the few scales of a row, and its `take`
decodes bytes faster than torch's cast. `.numpy()` shares memory, so this needs CPU tensors. The
rule is that of numerics.fp8; quantize_act's cases compare the two exactly.
"""

from __future__ import annotations

import struct

import numpy as np
import torch

from isobath.numerics import ue8m0
from isobath.numerics.dialect import DIALECTS, Dialect, decode_table
from isobath.numerics.fp8 import ACTIVATION_BLOCK, AMAX_FLOOR, Fp8Tensor

_MANTISSA_BITS = 23
_MANTISSA_MASK = (1 << _MANTISSA_BITS) - 1
_EXPONENT_MASK = np.int32(0x7F800000)
_GROUP = ACTIVATION_BLOCK[1]
_VALUES = {name: decode_table(dialect).numpy() for name, dialect in DIALECTS.items()}
_SCALES = ue8m0.decode(torch.arange(256).to(torch.uint8)).numpy()


def quantize_rows(x: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
    """x: [T, K] of any float dtype, K a multiple of 128 -> Fp8Tensor [T, K] in groups of 128.

    With amax = m * 2**k and quant_max = q * 2**p the scale is 2**(k - p), doubled if m > q: adding
    the largest mantissa minus q's to amax's bits carries into the exponent exactly then. Nothing is
    clamped: the scale keeps a finite group within quant_max, and any other decodes to NaN.
    """
    tokens, width = x.shape
    groups = x.float().view(tokens, width // _GROUP, _GROUP)
    amax = groups.abs().amax(-1, True).clamp_min_(AMAX_FLOOR).numpy()
    bits = amax.view(np.int32) + _CARRY[dialect.quant_max]
    byte = np.where(amax < np.inf, bits >> _MANTISSA_BITS, ue8m0.NAN_BYTE).astype(np.uint8)
    scale = torch.from_numpy((bits & _EXPONENT_MASK).view(np.float32))
    data = (groups / scale).to(dialect.dtype).view(tokens, width)
    return Fp8Tensor(data, torch.from_numpy(byte[:, :, 0]), dialect, ACTIVATION_BLOCK)


def decode_rows(x: Fp8Tensor) -> torch.Tensor:
    """Fp8Tensor [T, K] in groups of 128, K a multiple of 128 -> float32 [T, K], exact.

    2026-11-21, AMD EPYC (AVX-512, one thread), [T, 256], us at T = 1 / 16 / 512: take 2 / 5 / 89,
    torch's cast 2 / 13 / 388 (OCP) and 2 / 6 / 153 (FNUZ).
    """
    tokens, groups = x.scale.shape
    values = torch.from_numpy(_VALUES[x.dialect.name].take(x.data.view(torch.uint8).numpy()))
    scale = torch.from_numpy(_SCALES.take(x.scale.numpy())).unsqueeze(2)
    values.view(tokens, groups, _GROUP).mul_(scale)
    return values


def _carry(quant_max: float) -> np.int32:
    """What to add to the bits of amax so that their exponent field is the scale byte."""
    bits: int = struct.unpack("<i", struct.pack("<f", quant_max))[0]
    exponent = (bits >> _MANTISSA_BITS) - ue8m0.BIAS
    return np.int32(_MANTISSA_MASK - (bits & _MANTISSA_MASK) - (exponent << _MANTISSA_BITS))


_CARRY = {dialect.quant_max: _carry(dialect.quant_max) for dialect in DIALECTS.values()}
