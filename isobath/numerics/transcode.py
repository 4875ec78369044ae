"""Exact conversion of FP8 bytes between dialects, and the one deliberate way to lie about them.

OCP -> FNUZ keeps every byte (0x80, which is -0 there and NaN here, becomes 0x00) and doubles the
scale; FNUZ -> OCP keeps every byte and halves it. Nothing is rounded. What cannot be converted
exactly is an error naming the tensor and the index: NaN bytes, codes that are finite in one
dialect and NaN in the other, and scales that leave UE8M0's range.
"""

from __future__ import annotations

import torch

from isobath.errors import NumericsError
from isobath.numerics import ue8m0
from isobath.numerics.dialect import FNUZ, OCP, Dialect
from isobath.numerics.fp8 import Fp8Tensor


def transcode(t: Fp8Tensor, to: Dialect, *, name: str = "tensor") -> Fp8Tensor:
    """The same values in dialect `to`; `t` itself when it already speaks it.

    name: what the tensor is called in error messages. Raises NumericsError where a byte or a scale
    has no exact counterpart. Decoded values are bit-identical, except that -0 becomes +0.
    """
    if t.dialect == to:
        return t
    data, scale = transcode_bytes(
        t.data.view(torch.uint8), t.scale, source=t.dialect, to=to, name=name
    )
    return Fp8Tensor(data.view(to.dtype), scale, to, t.quant_block)


def transcode_bytes(
    data: torch.Tensor, scale: torch.Tensor, *, source: Dialect, to: Dialect, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """transcode() on raw uint8 bytes and UE8M0 scale bytes of any shape; returns new tensors."""
    assert {source, to} == {OCP, FNUZ}, (source, to)
    magnitude = data & 0x7F
    if source == OCP:
        _refuse(magnitude == 0x7F, data, name, "is NaN in OCP", "the weight would stay NaN")
        _refuse(scale >= 254, scale, f"{name} scale", "has no UE8M0 byte above it", "scale NaN")
        # A sign survives only beside a magnitude: m + 0x7F has its top bit set unless m was 0.
        return magnitude.add_(0x7F).bitwise_or_(0x7F).bitwise_and_(data), scale + 1
    _refuse(data == 0x80, data, name, "is NaN in FNUZ", "the weight would turn into -0")
    _refuse(magnitude == 0x7F, data, name, "is 240 in FNUZ, NaN in OCP", "the value would be lost")
    _refuse(scale == ue8m0.NAN_BYTE, scale, f"{name} scale", "is NaN", "the block would be NaN")
    _refuse(scale == 0, scale, f"{name} scale", "has no UE8M0 byte below it", "scale underflow")
    return data.clone(), scale - 1


def relabel(t: Fp8Tensor, claim: Dialect) -> Fp8Tensor:
    """The same bytes and scales claimed to be of another dialect: wrong on purpose.

    This is the field's commonest fault as a function. Tests and the doctor use it to show that a
    mislabelled tensor is noticed; nothing else may.
    """
    return Fp8Tensor(t.data.view(torch.uint8).view(claim.dtype), t.scale, claim, t.quant_block)


def _refuse(bad: torch.Tensor, values: torch.Tensor, name: str, why: str, effect: str) -> None:
    if not bool(bad.any()):
        return
    index = tuple(int(i) for i in bad.nonzero()[0])
    raise NumericsError(
        f"transcode {name}: byte 0x{int(values[index]):02x} at index {list(index)} {why}",
        found=f"{int(bad.sum())} such bytes of {bad.numel()}",
        effect=effect,
        do="keep the tensor in its own dialect, or write the checkpoint again from its source",
    )
