"""MXFP4: every code, every tie and every finite bf16 value, judged by ml_dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isobath.errors import NumericsError
from isobath.numerics import Mxfp4Tensor, mxfp4
from tests.support.values import finite_bf16

CODES = torch.arange(16, dtype=torch.uint8)
TIES = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)


def authority(x: np.ndarray) -> list[int]:
    return x.astype(np.float32).astype(ml_dtypes.float4_e2m1fn).view(np.uint8).tolist()


def test_every_code_decodes_as_ml_dtypes_does() -> None:
    want = CODES.numpy().view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    got = mxfp4.decode_codes(CODES).numpy()
    assert got.view(np.uint32).tolist() == want.view(np.uint32).tolist()
    assert mxfp4.QUANT_MAX == want.max() == 6


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_ties_go_to_the_even_code_and_their_neighbours_to_the_nearest(sign: float) -> None:
    tie = np.float32(TIES)
    x = sign * np.concatenate([tie, np.nextafter(tie, np.float32(0)), np.nextafter(tie, np.inf)])
    x = x.astype(np.float32)
    got = mxfp4.encode_values(torch.from_numpy(x)).tolist()
    assert got == authority(x)
    negative = 8 if sign < 0 else 0
    assert got[:7] == [c + negative for c in (0, 2, 2, 4, 4, 6, 6)]
    assert got[7:14] == [c + negative for c in range(7)]
    assert got[14:] == [c + negative for c in range(1, 8)]


def test_grid_of_values_encodes_as_ml_dtypes_does() -> None:
    x = np.arange(-6 * 256, 6 * 256 + 1, dtype=np.float32) / 256
    assert mxfp4.encode_values(torch.from_numpy(x)).tolist() == authority(x)


def test_every_code_encodes_to_itself() -> None:
    assert torch.equal(mxfp4.encode_values(mxfp4.decode_codes(CODES)), CODES)


def test_low_nibble_is_the_even_k() -> None:
    assert mxfp4.unpack(torch.tensor([0x21, 0xF3], dtype=torch.uint8)).tolist() == [1, 2, 3, 15]
    assert mxfp4.pack(torch.tensor([1, 2, 3, 15], dtype=torch.uint8)).tolist() == [0x21, 0xF3]


def test_pack_is_the_inverse_of_unpack_for_every_byte() -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(mxfp4.pack(mxfp4.unpack(raw)), raw)


def test_negative_zero_is_cleared_and_nothing_else() -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    before, after = mxfp4.unpack(raw), mxfp4.unpack(mxfp4.clear_negative_zero(raw))
    assert torch.equal(after, torch.where(before == 8, 0, before))


def oracle(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(codes without -0, scale bytes) of rows of 32 as one group each."""
    amax = np.maximum(np.abs(x).max(-1, keepdims=True).astype(np.float64), 6 * 2.0**-126)
    mantissa, exponent = np.frexp(amax / 6.0)
    exponent = exponent - (mantissa == 0.5)
    scaled = np.ldexp(x.astype(np.float64), -exponent)
    codes = np.array(authority(np.clip(scaled, -6, 6))).reshape(x.shape)
    return np.where(codes == 8, 0, codes), exponent + 127


@pytest.mark.parametrize("order", ["sorted", "shuffled", "alone"])
def test_every_finite_bf16_quantises_as_the_oracle_says(order: str) -> None:
    x = finite_bf16()
    if order == "shuffled":
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    rows = x.view(-1, 32)
    if order == "alone":  # each value the only one of its group
        rows = torch.zeros(len(x), 32, dtype=torch.bfloat16)
        rows[:, 7] = x
    got = mxfp4.quantize(rows)
    codes, scale = oracle(rows.float().numpy())
    assert np.array_equal(got.scale.numpy(), scale)
    assert np.array_equal(mxfp4.unpack(got.packed).numpy(), codes)


@given(st.integers(0, 7), st.integers(1, 6), st.integers(0, 99))
def test_decoded_values_quantise_to_themselves(n: int, groups: int, seed: int) -> None:
    """Once more through the format changes nothing: each decoded value has an exact code."""
    x = torch.randn(n, 32 * groups, generator=torch.Generator().manual_seed(seed))
    once = mxfp4.dequantize(mxfp4.quantize(x))
    assert torch.equal(mxfp4.dequantize(mxfp4.quantize(once)), once)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_group_holding_nan_or_infinity_decodes_to_nan_as_a_whole(bad: float) -> None:
    x = torch.ones(1, 64)
    x[0, 5] = bad
    got = mxfp4.dequantize(mxfp4.quantize(x))[0]
    assert got[:32].isnan().all() and torch.equal(got[32:], x[0, 32:])


def test_every_scale_byte_scales_every_code() -> None:
    packed = mxfp4.pack(CODES.repeat(2)).repeat(255, 1)
    scale = torch.arange(255, dtype=torch.uint8).view(-1, 1)
    got = mxfp4.dequantize(Mxfp4Tensor(packed, scale)).double()
    want = mxfp4.decode_codes(CODES.repeat(2)).double() * 2.0 ** (scale.double() - 127)
    # 6 * 2**127 is beyond float32 and 0.5 * 2**-127 a subnormal that it holds exactly
    assert torch.equal(got[:253], want[:253])
    assert got[254, 7].isinf() and got[254, 2].item() == 2.0**127


@pytest.mark.parametrize(
    ("packed", "scale"),
    [
        (torch.zeros(2, 32, dtype=torch.int8), torch.zeros(2, 2, dtype=torch.uint8)),
        (torch.zeros(2, 32, dtype=torch.uint8), torch.zeros(2, 2)),
        (torch.zeros(2, 32, dtype=torch.uint8), torch.zeros(2, 1, dtype=torch.uint8)),
        (torch.zeros(2, 24, dtype=torch.uint8), torch.zeros(2, 1, dtype=torch.uint8)),
    ],
)
def test_other_shapes_and_dtypes_are_refused(packed: torch.Tensor, scale: torch.Tensor) -> None:
    with pytest.raises(NumericsError, match="K a multiple of 32"):
        Mxfp4Tensor(packed, scale)


def test_size_counts_codes_and_scales() -> None:
    t = mxfp4.quantize(torch.ones(3, 64))
    assert t.shape == (3, 64) and t.nbytes() == 3 * 32 + 3 * 2
