"""MXFP4: e2m1 codes, two a byte along K (low nibble = even k), one UE8M0 scale per 32 values.

Codes 0..7 are 0, 0.5, 1, 1.5, 2, 3, 4, 6; bit 3 is the sign; the largest value is 6, not 7. MXFP4
has no dialect: its bytes mean the same everywhere. Code 8 (-0) is legal but a trap for kernels that
widen nibbles to FP8 bytes, since 0x80 is NaN in FNUZ; `clear_negative_zero` removes it without
changing a value. Source: OCP Microscaling Formats Specification 1.0, sections 5.3 and 6.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.errors import NumericsError
from isobath.numerics import ue8m0

GROUP = 32
QUANT_MAX = 6.0
AMAX_FLOOR = 6 * 2.0**-126
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True, slots=True)
class Mxfp4Tensor:
    """A matrix [..., N, K] of e2m1 values.

    packed: uint8 [..., N, K/2]. scale: uint8 UE8M0 bytes [..., N, K/32]. Raises NumericsError when
    either has another dtype or shape.
    """

    packed: torch.Tensor
    scale: torch.Tensor

    def __post_init__(self) -> None:
        expected = (*self.packed.shape[:-1], self.packed.shape[-1] * 2 // GROUP)
        right = self.packed.dtype == self.scale.dtype == torch.uint8
        if not right or tuple(self.scale.shape) != expected or self.packed.shape[-1] * 2 % GROUP:
            raise NumericsError(
                f"Mxfp4Tensor: packed uint8 {list(self.packed.shape)} needs uint8 scales "
                f"{list(expected)}, K a multiple of {GROUP}",
                found=f"packed {self.packed.dtype}, scale {self.scale.dtype} "
                f"{list(self.scale.shape)}",
                effect="values would be multiplied by another group's scale",
                do="view I8 and float8_e8m0fnu tensors as uint8 (never cast them numerically)",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.packed.shape[:-1], self.packed.shape[-1] * 2)

    def nbytes(self) -> int:
        return self.packed.numel() + self.scale.numel()


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """uint8 [..., K/2] -> e2m1 codes uint8 [..., K]; the low nibble is the even k."""
    return torch.stack((packed & 0xF, packed >> 4), -1).flatten(-2)


def pack(codes: torch.Tensor) -> torch.Tensor:
    """e2m1 codes uint8 [..., K] -> uint8 [..., K/2]; inverse of unpack()."""
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def decode_codes(codes: torch.Tensor) -> torch.Tensor:
    """e2m1 codes 0..15 (uint8) -> float32 values."""
    table = torch.tensor(MAGNITUDES + tuple(-m for m in MAGNITUDES), device=codes.device)
    return table[codes.long()]


def encode_values(x: torch.Tensor) -> torch.Tensor:
    """float32 with |x| <= 6 -> e2m1 codes, nearest, ties to the even code."""
    edges = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], device=x.device)
    magnitude = x.abs().contiguous()
    below = torch.bucketize(magnitude, edges)  # a tie goes to the lower code ...
    above = torch.bucketize(magnitude, edges, right=True)  # ... or to the upper one
    code = torch.where(below % 2 == 0, below, above)
    return (code + 8 * torch.signbit(x)).to(torch.uint8)


def quantize(x: torch.Tensor) -> Mxfp4Tensor:
    """Quantise a matrix [..., N, K] to MXFP4, one scale per 32 values of K.

    Arithmetic in float32; a group holding NaN or infinity gets the NaN scale. Rounding: nearest,
    ties to the even code. -0 is written as +0.
    """
    groups = x.float().unflatten(-1, (-1, GROUP))
    scale = ue8m0.choose(groups.abs().amax(-1).clamp_min(AMAX_FLOOR), QUANT_MAX)
    scaled = (groups * ue8m0.reciprocal(scale).unsqueeze(-1)).clamp(-QUANT_MAX, QUANT_MAX)
    codes = encode_values(scaled.nan_to_num(0.0)).flatten(-2)
    return Mxfp4Tensor(pack(torch.where(codes == 8, 0, codes)), scale)


def dequantize(t: Mxfp4Tensor) -> torch.Tensor:
    """Decode to float32 [..., N, K]; exact."""
    values = decode_codes(unpack(t.packed)).unflatten(-1, (-1, GROUP))
    return (values * ue8m0.decode(t.scale).unsqueeze(-1)).flatten(-2)


def clear_negative_zero(packed: torch.Tensor) -> torch.Tensor:
    """Rewrite nibble 8 (-0) to 0 in a new uint8 tensor; every other nibble is unchanged."""
    keep = packed & 0x77  # magnitudes; adding 7 to one sets its top bit unless it was 0, and 7 + 7
    keep += 0x77  # stays below 16, so no nibble carries into its neighbour
    keep |= 0x77
    return keep.bitwise_and_(packed)
