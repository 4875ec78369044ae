"""FP8 between dialects: exact for every byte and scale, or refused by name and index."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from isobath.errors import NumericsError
from isobath.numerics import FNUZ, OCP, Dialect, Fp8Tensor, dequantize, relabel, transcode

AUTHORITY = {"ocp": ml_dtypes.float8_e4m3fn, "fnuz": ml_dtypes.float8_e4m3fnuz}
GOOD_BYTES = {"ocp": [b for b in range(256) if b & 0x7F != 0x7F]}
GOOD_BYTES["fnuz"] = [b for b in GOOD_BYTES["ocp"] if b != 0x80]
GOOD_SCALES = {"ocp": list(range(254)), "fnuz": list(range(1, 255))}
WAYS = [(OCP, FNUZ), (FNUZ, OCP)]
ways = pytest.mark.parametrize(("source", "to"), WAYS, ids=["to_fnuz", "to_ocp"])


def grid(dialect: Dialect) -> Fp8Tensor:
    """Every byte beside every scale that can be converted: [scales, bytes], one value a block."""
    raw = torch.tensor(GOOD_BYTES[dialect.name], dtype=torch.uint8)
    scale = torch.tensor(GOOD_SCALES[dialect.name], dtype=torch.uint8)
    data = raw.repeat(len(scale), 1).view(dialect.dtype)
    return Fp8Tensor(data, scale.view(-1, 1).repeat(1, len(raw)), dialect, (1, 1))


def exact(t: Fp8Tensor) -> np.ndarray:
    """Values in float64, which holds each exactly, decoded by ml_dtypes."""
    bytes_ = t.data.view(torch.uint8).numpy().view(AUTHORITY[t.dialect.name]).astype(np.float64)
    return np.ldexp(bytes_, t.scale.numpy().astype(np.int32) - 127)


@ways
def test_every_byte_and_scale_keeps_its_value(source: Dialect, to: Dialect) -> None:
    t = grid(source)
    moved = transcode(t, to)
    assert moved.dialect == to and moved.data.dtype == to.dtype
    assert np.array_equal(exact(t), exact(moved))
    # in float32 both overflow or stay subnormal at the ends of the scale alike
    assert torch.equal(dequantize(t) + 0.0, dequantize(moved) + 0.0)


@ways
def test_there_and_back_is_the_same_bytes_except_negative_zero(
    source: Dialect, to: Dialect
) -> None:
    t = grid(source)
    back = transcode(transcode(t, to), source)
    before, after = t.data.view(torch.uint8), back.data.view(torch.uint8)
    assert torch.equal(after, torch.where(before == 0x80, 0, before))
    assert torch.equal(back.scale, t.scale)


def test_same_dialect_is_the_tensor_itself() -> None:
    t = grid(FNUZ)
    assert transcode(t, FNUZ) is t


@ways
def test_result_shares_no_memory_with_its_source(source: Dialect, to: Dialect) -> None:
    t = grid(source)
    data, scale = t.data.view(torch.uint8).clone(), t.scale.clone()
    moved = transcode(t, to)
    moved.data.view(torch.uint8).fill_(1)
    moved.scale.fill_(1)
    assert torch.equal(t.data.view(torch.uint8), data) and torch.equal(t.scale, scale)


@pytest.mark.parametrize(
    ("source", "byte", "why"),
    [
        (OCP, 0x7F, "is NaN in OCP"),
        (OCP, 0xFF, "is NaN in OCP"),
        (FNUZ, 0x80, "is NaN in FNUZ"),
        (FNUZ, 0x7F, "is 240 in FNUZ, NaN in OCP"),
        (FNUZ, 0xFF, "is 240 in FNUZ, NaN in OCP"),
    ],
)
def test_byte_without_counterpart_is_refused_by_name_and_index(
    source: Dialect, byte: int, why: str
) -> None:
    data = torch.full((3, 4), 0x38, dtype=torch.uint8)
    data[1, 2] = data[2, 0] = byte
    scale = torch.full((3, 1), 127, dtype=torch.uint8)
    t = Fp8Tensor(data.view(source.dtype), scale, source, (1, 4))
    with pytest.raises(NumericsError) as error:
        transcode(t, FNUZ if source == OCP else OCP, name="layers.3.attn.wq_a")
    message = f"transcode layers.3.attn.wq_a: byte 0x{byte:02x} at index [1, 2] {why}"
    assert error.value.asked == message
    assert error.value.found == "2 such bytes of 12"
    assert error.value.effect and error.value.do


@pytest.mark.parametrize(
    ("source", "byte", "why"),
    [
        (OCP, 254, "has no UE8M0 byte above it"),
        (OCP, 255, "has no UE8M0 byte above it"),
        (FNUZ, 0, "has no UE8M0 byte below it"),
        (FNUZ, 255, "is NaN"),
    ],
)
def test_scale_without_counterpart_is_refused_by_name_and_index(
    source: Dialect, byte: int, why: str
) -> None:
    scale = torch.full((3, 2), 127, dtype=torch.uint8)
    scale[2, 1] = byte
    data = torch.zeros(3, 8, dtype=torch.uint8).view(source.dtype)
    with pytest.raises(NumericsError) as error:
        transcode(Fp8Tensor(data, scale, source, (1, 4)), FNUZ if source == OCP else OCP, name="w")
    assert error.value.asked == f"transcode w scale: byte 0x{byte:02x} at index [2, 1] {why}"


@ways
def test_relabelled_bytes_are_off_by_exactly_two(source: Dialect, to: Dialect) -> None:
    t = grid(source)
    lied = relabel(t, to)
    raw = t.data.view(torch.uint8)
    assert torch.equal(lied.data.view(torch.uint8), raw) and torch.equal(lied.scale, t.scale)
    numbers = raw.numpy() != 0x80  # -0 in OCP, NaN in FNUZ
    factor = 0.5 if to == FNUZ else 2.0
    assert np.array_equal(exact(lied)[numbers], factor * exact(t)[numbers])
    assert np.isnan(exact(lied)[~numbers]).all()
