"""FP8 activation rows on a CPU: the CPU backends' own quantiser and decoder, compiled by numba.

A decode step quantises and decodes small rows dozens of times, and a torch call costs 1 to 3 us
however small its tensor; a compiled loop costs one. Rows are independent and every operation is
exact or one IEEE rounding, so results depend on nothing else. `.numpy()` shares memory, so this
needs CPU tensors. The rule is that of numerics.fp8; quantize_act's cases compare the two exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from isobath.numerics import ue8m0
from isobath.numerics.dialect import DIALECTS, Dialect, decode_table
from isobath.numerics.fp8 import ACTIVATION_BLOCK, AMAX_FLOOR, Fp8Tensor

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
_GROUP = ACTIVATION_BLOCK[1]
_VALUES = {name: decode_table(dialect).numpy() for name, dialect in DIALECTS.items()}
_SCALES = ue8m0.decode(torch.arange(256).to(torch.uint8)).numpy()


def quantize_rows(x: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
    """x: [T, K] of any float dtype, K a multiple of 128 -> Fp8Tensor [T, K] in groups of 128."""
    tokens, width = x.shape
    codes = np.empty((tokens, width), np.uint8)
    scale = np.empty((tokens, width // _GROUP), np.uint8)
    limit_exponent = int(dialect.quant_max).bit_length() - 1
    assert dialect.quant_max == 1.75 * 2**limit_exponent, dialect
    _quantize(x.float().contiguous().numpy(), codes, scale, limit_exponent, dialect.bias)
    data = torch.from_numpy(codes).view(dialect.dtype)
    return Fp8Tensor(data, torch.from_numpy(scale), dialect, ACTIVATION_BLOCK)


def decode_rows(x: Fp8Tensor) -> torch.Tensor:
    """Fp8Tensor [T, K] in groups of 128, K a multiple of 128 -> float32 [T, K], exact."""
    values = np.empty(x.data.shape, np.float32)
    codes = x.data.view(torch.uint8).numpy()
    _decode(codes, x.scale.numpy(), _VALUES[x.dialect.name], _SCALES, values)
    return torch.from_numpy(values)


@njit(cache=True, error_model="numpy")
def _quantize(x: Floats, codes: Bytes, scale: Bytes, limit_exponent: int, bias: int) -> None:
    """Adding 0x1FFFFF to amax's bits carries into the exponent exactly when its significand exceeds
    1.75, that of 448 and of 224. Codes are rounded to even by integers where they are normal, and
    where they are not by adding the power of two whose last bit is FP8's. A group with NaN or
    infinity gets the NaN scale."""
    group = np.empty(_GROUP, np.float32)
    bits = group.view(np.int32)
    magic = np.float32(2.0 ** (21 - bias))
    normal = np.float32(2.0 ** (1 - bias))
    largest = np.empty(1, np.float32)
    largest_bits = largest.view(np.int32)
    for token in range(x.shape[0]):
        for block in range(scale.shape[1]):
            start = block * _GROUP
            amax, finite = np.float32(AMAX_FLOOR), True
            for i in range(_GROUP):
                magnitude = abs(x[token, start + i])
                finite &= magnitude < np.inf
                amax = max(amax, magnitude)
            if not finite:
                scale[token, block] = 255
                codes[token, start : start + _GROUP] = 0
                continue
            largest[0] = amax
            exponent = ((largest_bits[0] + 0x1FFFFF) >> 23) - 127 - limit_exponent
            scale[token, block] = max(exponent + 127, 0)
            inverse = np.float32(2.0 ** -max(exponent, -127))
            for i in range(_GROUP):
                group[i] = abs(x[token, start + i]) * inverse
            for i in range(_GROUP):
                rounded = (bits[i] + 0x7FFFF + ((bits[i] >> 20) & 1)) >> 20
                code = rounded - ((127 - bias) << 3)
                if group[i] < normal:
                    small = group[i] + magic
                    code = np.int32((small - magic) * np.float32(2.0 ** (bias + 2)))
                if code and x[token, start + i] < 0:
                    code |= 0x80
                codes[token, start + i] = code


@njit(cache=True, error_model="numpy")
def _decode(codes: Bytes, scale: Bytes, table: Floats, scales: Floats, values: Floats) -> None:
    for token in range(codes.shape[0]):
        for block in range(scale.shape[1]):
            factor = scales[scale[token, block]]
            for i in range(block * _GROUP, (block + 1) * _GROUP):
                values[token, i] = table[codes[token, i]] * factor
