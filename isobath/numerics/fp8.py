"""FP8 tensors that carry their dialect, and the one quantisation rule all of isobath follows.

A block's scale is the smallest power of two that brings its amax to at most quant_max; values are
divided exactly, clamped and rounded to nearest even. The clamp comes before the cast because a
cast to FNUZ does not saturate everywhere. Source: DeepSeek-V4 inference code, act_quant; the FNUZ
maximum of 224 is argued in dialect.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.errors import DialectMismatch, NumericsError
from isobath.numerics import ue8m0
from isobath.numerics.dialect import DIALECTS, Dialect, dialect_of

ACTIVATION_BLOCK = (1, 128)
WEIGHT_BLOCK = (128, 128)
AMAX_FLOOR = 1e-4
"""Smallest amax a scale is chosen for, so that an all-zero block has a normal scale."""


@dataclass(frozen=True, slots=True)
class Fp8Tensor:
    """A matrix of FP8 bytes with one UE8M0 scale a block.

    data: [..., N, K] in `dialect.dtype`. scale: uint8 UE8M0 bytes [..., ceil(N/r), ceil(K/c)] for
    quant_block (r, c). Decoded value = data * 2**(scale - 127). Raises DialectMismatch when the
    bytes are of another dialect than claimed, NumericsError for a wrong scale.
    """

    data: torch.Tensor
    scale: torch.Tensor
    dialect: Dialect
    quant_block: tuple[int, int]

    def __post_init__(self) -> None:
        if self.data.dtype != self.dialect.dtype:
            known = {d.dtype for d in DIALECTS.values()}
            kind = DialectMismatch if self.data.dtype in known else NumericsError
            raise kind(
                f"Fp8Tensor: expected {self.dialect} bytes ({self.dialect.torch_name})",
                found=str(self.data.dtype),
                effect="read in the wrong dialect every value would be off by a factor of two",
                do="transcode() the tensor, or name the dialect that its bytes were written in",
            )
        expected = scale_shape(tuple(self.data.shape), self.quant_block)
        if tuple(self.scale.shape) != expected or self.scale.dtype != torch.uint8:
            raise NumericsError(
                f"Fp8Tensor: scale of data {list(self.data.shape)} in blocks of "
                f"{self.quant_block} must be uint8 {list(expected)}",
                found=f"{self.scale.dtype} {list(self.scale.shape)}",
                effect="values would be multiplied by another block's scale",
                do="pass one UE8M0 byte a block (view float8_e8m0fnu as uint8, never cast it)",
            )

    @property
    def shape(self) -> torch.Size:
        return self.data.shape

    def nbytes(self) -> int:
        return self.data.numel() + self.scale.numel()


def scale_shape(shape: tuple[int, ...], quant_block: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the scales of a matrix of `shape`: one a block, partial blocks at the edge count."""
    rows, cols = quant_block
    return (*shape[:-2], -(-shape[-2] // rows), -(-shape[-1] // cols))


def quantize(x: torch.Tensor, dialect: Dialect, quant_block: tuple[int, int]) -> Fp8Tensor:
    """Quantise a matrix to FP8 with one UE8M0 scale a block.

    x: [..., N, K], any float dtype; arithmetic in float32. A block holding NaN or infinity gets the
    NaN scale, so that it decodes to NaN as a whole. Rounding: nearest, ties to even.
    """
    rows, cols = quant_block
    values = x.float()
    scale = ue8m0.choose(_block_amax(values, quant_block).clamp_min(AMAX_FLOOR), dialect.quant_max)
    scaled = values * expand_scale(ue8m0.reciprocal(scale), values.shape, quant_block)
    limit = dialect.quant_max
    return Fp8Tensor(scaled.clamp(-limit, limit).to(dialect.dtype), scale, dialect, (rows, cols))


def dequantize(t: Fp8Tensor) -> torch.Tensor:
    """Decode to float32 [..., N, K]. Exact: a 4-bit significand times a power of two."""
    return t.data.float() * expand_scale(ue8m0.decode(t.scale), t.shape, t.quant_block)


def expand_scale(
    scale: torch.Tensor, shape: tuple[int, ...] | torch.Size, quant_block: tuple[int, int]
) -> torch.Tensor:
    """Repeat float32 block scales to the elements of a matrix of `shape`."""
    rows, cols = quant_block
    by_row = scale.repeat_interleave(rows, -2)[..., : shape[-2], :]
    return by_row.repeat_interleave(cols, -1)[..., : shape[-1]]


def _block_amax(x: torch.Tensor, quant_block: tuple[int, int]) -> torch.Tensor:
    rows, cols = quant_block
    pad_rows, pad_cols = -x.shape[-2] % rows, -x.shape[-1] % cols
    padded = torch.nn.functional.pad(x.abs(), (0, pad_cols, 0, pad_rows))
    blocks = padded.unflatten(-1, (-1, cols)).unflatten(-3, (-1, rows))
    return blocks.amax((-3, -1))


def fill_nan(t: torch.Tensor) -> torch.Tensor:
    """Fill an FP8 tensor with its dialect's NaN byte, so that reading unwritten memory is loud."""
    t.view(torch.uint8).fill_(dialect_of(t.dtype).quiet_nan)
    return t
