"""The two FP8 dialects as values: what a byte means, nothing about which machine prefers it.

OCP e4m3fn (checkpoints, NVIDIA, gfx950) and e4m3fnuz (gfx942: MI300X, MI325X) share sign, 4
exponent and 3 mantissa bits, but not the bias: for 253 of the 256 bytes value(OCP) is exactly
2 * value(FNUZ). Read in the wrong dialect nothing crashes; every number is off by two.

FNUZ quantises to at most 224, not to its largest value 240. With 224 its bytes equal the OCP
bytes (448) and only the scale differs, by one power of two, so decoded values are identical in
both dialects. Source: OCP 8-bit Floating Point Specification 1.0; FNUZ as in LLVM's APFloat.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from isobath.errors import NumericsError


@dataclass(frozen=True, slots=True)
class Dialect:
    """One meaning of an FP8 e4m3 byte.

    name: "ocp" or "fnuz". bias: exponent bias. max: largest finite value. quant_max: the value that
    a quantiser maps a block's amax to. nan_bytes: bytes that decode to NaN. quiet_nan: the one of
    them that unwritten memory is filled with. negative_zero: whether 0x80 is -0 (else it is NaN).
    torch_name, triton_name: the dtype's name in each library.
    """

    name: str
    bias: int
    max: float
    quant_max: float
    nan_bytes: tuple[int, ...]
    quiet_nan: int
    negative_zero: bool
    torch_name: str
    triton_name: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype whose bytes speak this dialect."""
        dtype = getattr(torch, self.torch_name)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def __str__(self) -> str:
        return self.name.upper()


OCP = Dialect(
    name="ocp",
    bias=7,
    max=448.0,
    quant_max=448.0,
    nan_bytes=(0x7F, 0xFF),
    quiet_nan=0x7F,
    negative_zero=True,
    torch_name="float8_e4m3fn",
    triton_name="fp8e4nv",
)
FNUZ = Dialect(
    name="fnuz",
    bias=8,
    max=240.0,
    quant_max=224.0,
    nan_bytes=(0x80,),
    quiet_nan=0x80,
    negative_zero=False,
    torch_name="float8_e4m3fnuz",
    triton_name="fp8e4b8",
)
DIALECTS: dict[str, Dialect] = {d.name: d for d in (OCP, FNUZ)}


def dialect_of(dtype: torch.dtype) -> Dialect:
    """The dialect that a torch FP8 dtype speaks. Raises NumericsError for any other dtype."""
    for dialect in DIALECTS.values():
        if dialect.dtype == dtype:
            return dialect
    raise NumericsError(
        f"dialect_of({dtype}): not an FP8 e4m3 dtype",
        found=str(dtype),
        do="pass " + " or ".join(d.torch_name for d in DIALECTS.values()),
    )


@cache
def decode_table(dialect: Dialect) -> torch.Tensor:
    """Value of every byte: float32 [256] on the CPU, NaN where the dialect has NaN.

    Built from the bit fields by integer arithmetic, independent of any library's cast, so that a
    cast can be judged against it. Callers must not write to the returned tensor.
    """
    values = []
    for byte in range(256):
        sign = -1.0 if byte & 0x80 else 1.0
        exponent, mantissa = (byte >> 3) & 0xF, byte & 0x7
        if byte in dialect.nan_bytes:
            values.append(float("nan"))
        elif exponent:
            values.append(sign * (8 + mantissa) * 2.0 ** (exponent - dialect.bias - 3))
        else:
            values.append(sign * mantissa * 2.0 ** (1 - dialect.bias - 3))
    return torch.tensor(values, dtype=torch.float32)
