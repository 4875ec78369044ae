"""FP8 quantisation: the same values in both dialects, for every finite bf16 input.

The oracle chooses scales with numpy's frexp and rounds with ml_dtypes; it shares no code with the
package. Blocks are one value, 128 equal values, or 128 of all bf16 values in random order.
"""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isobath.errors import DialectMismatch, NumericsError
from isobath.numerics import (
    ACTIVATION_BLOCK,
    DIALECTS,
    FNUZ,
    OCP,
    WEIGHT_BLOCK,
    Dialect,
    Fp8Tensor,
    dequantize,
    fp8,
    quantize,
)
from tests.support.values import finite_bf16

both = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)
AUTHORITY = {"ocp": ml_dtypes.float8_e4m3fn, "fnuz": ml_dtypes.float8_e4m3fnuz}


def shuffled() -> torch.Tensor:
    order = torch.randperm(65_280, generator=torch.Generator().manual_seed(0))
    return finite_bf16()[order].view(-1, 128)


BLOCKS = {
    "alone": lambda: finite_bf16().view(-1, 1),
    "equal": lambda: finite_bf16().view(-1, 1).repeat(1, 128)[::7],  # 7: every exponent and sign
    "shuffled": shuffled,
    "near": lambda: finite_bf16().view(-1, 128),  # neighbours share an exponent
}
layouts = pytest.mark.parametrize("block", BLOCKS)


def bits(t: torch.Tensor) -> torch.Tensor:
    return t.view(torch.int32)


@layouts
def test_both_dialects_decode_to_the_same_bits(block: str) -> None:
    x = BLOCKS[block]()
    ocp, fnuz = (quantize(x, d, ACTIVATION_BLOCK) for d in (OCP, FNUZ))
    assert torch.equal(fnuz.scale, ocp.scale + 1)
    ours, theirs = ocp.data.view(torch.uint8), fnuz.data.view(torch.uint8)
    negative_zero = ours == 0x80
    assert torch.equal(ours[~negative_zero], theirs[~negative_zero])
    assert (theirs[negative_zero] == 0).all()
    values = [bits(dequantize(t) + 0.0) for t in (ocp, fnuz)]  # + 0.0: -0 becomes +0
    assert torch.equal(*values)


def oracle(x: np.ndarray, dialect: Dialect) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, scale bytes) of float32 rows as one block each."""
    amax = np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-4)).astype(np.float64)
    mantissa, exponent = np.frexp(amax / dialect.quant_max)
    exponent = exponent - (mantissa == 0.5)
    scaled = np.ldexp(x.astype(np.float64), -exponent)
    limit = dialect.quant_max
    # float32 holds a scaled bf16 exactly, or it is far below half of the smallest FP8 value
    rounded = np.clip(scaled, -limit, limit).astype(np.float32).astype(AUTHORITY[dialect.name])
    return rounded.view(np.uint8), (exponent + 127).astype(np.uint8)


@both
@layouts
def test_quantised_bytes_are_those_of_the_oracle(block: str, dialect: Dialect) -> None:
    x = BLOCKS[block]()
    got = quantize(x, dialect, ACTIVATION_BLOCK)
    data, scale = oracle(x.float().numpy(), dialect)
    assert np.array_equal(got.scale.numpy(), scale)
    assert np.array_equal(got.data.view(torch.uint8).numpy(), data)


@both
@layouts
def test_error_is_at_most_half_a_step(block: str, dialect: Dialect) -> None:
    """3 mantissa bits: half a step is 2^-4 of the value, or half the smallest subnormal.

    Decoded in float64: a bf16 within half a step of 2^128 rounds to it, which float32 cannot hold.
    """
    x = BLOCKS[block]().double()
    q = quantize(x.float(), dialect, ACTIVATION_BLOCK)
    scale = fp8.expand_scale(fp8.ue8m0.decode(q.scale), x.shape, ACTIVATION_BLOCK).double()
    smallest = 2.0 ** (1 - dialect.bias - 3)
    allowed = torch.maximum(x.abs() * 2**-4, scale * smallest / 2)
    assert bool(((q.data.double() * scale - x).abs() <= allowed).all())


def test_with_240_some_blocks_would_differ() -> None:
    """Why quant_max is 224: a block whose amax is between has a finer scale in FNUZ than in OCP."""
    greedy = replace(FNUZ, quant_max=240.0)
    x = torch.tensor([[232.0, 2.0**-10], [200.0, 2.0**-10]])
    ocp, ours, theirs = (dequantize(quantize(x, d, (1, 2))) for d in (OCP, FNUZ, greedy))
    assert torch.equal(ocp, ours)
    assert (ocp != theirs).any(-1).tolist() == [True, False]
    codes = quantize(torch.tensor([[240.0]]), greedy, (1, 1)).data.view(torch.uint8)
    assert codes.item() == 0x7F  # which is NaN to an OCP reader


def test_with_240_blocks_of_random_activations_differ() -> None:
    x = torch.randn(2000, 128, generator=torch.Generator().manual_seed(0)) * 64
    x[:, 1::2] *= 2.0**-12
    ocp, theirs = (
        dequantize(quantize(x, d, ACTIVATION_BLOCK)) for d in (OCP, replace(FNUZ, quant_max=240.0))
    )
    assert 0 < int((ocp != theirs).any(-1).sum()) < 2000


@both
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_block_holding_nan_or_infinity_decodes_to_nan_as_a_whole(
    dialect: Dialect, bad: float
) -> None:
    x = torch.ones(2, 256)
    x[0, 3] = bad
    got = dequantize(quantize(x, dialect, ACTIVATION_BLOCK))
    assert got[0, :128].isnan().all()
    assert torch.equal(got[0, 128:], x[0, 128:]) and torch.equal(got[1], x[1])


@both
def test_zero_block_has_a_normal_scale_and_decodes_to_zero(dialect: Dialect) -> None:
    got = quantize(torch.zeros(1, 128), dialect, ACTIVATION_BLOCK)
    assert 1 <= got.scale.item() <= 254
    assert not dequantize(got).any()


@both
@given(rows=st.integers(1, 300), cols=st.integers(1, 300), seed=st.integers(0, 99))
def test_ragged_matrix_is_quantised_block_by_block(
    dialect: Dialect, rows: int, cols: int, seed: int
) -> None:
    """A matrix of any shape equals its 128 x 128 blocks quantised alone."""
    x = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))
    whole = quantize(x, dialect, WEIGHT_BLOCK)
    for i in range(0, rows, 128):
        for j in range(0, cols, 128):
            part = quantize(x[i : i + 128, j : j + 128], dialect, WEIGHT_BLOCK)
            assert part.scale.item() == whole.scale[i // 128, j // 128].item()
            same = whole.data.view(torch.uint8)[i : i + 128, j : j + 128]
            assert torch.equal(part.data.view(torch.uint8), same)


@both
def test_values_of_a_dialect_survive_quantisation(dialect: Dialect) -> None:
    """Bytes whose block holds quant_max come back as they are."""
    raw = torch.tensor([b for b in range(256) if b & 0x7F < 0x7F and b != 0x80], dtype=torch.uint8)
    x = raw.view(dialect.dtype).float().view(1, -1)
    back = quantize(x, dialect, (1, 256))
    assert back.scale.item() == 127
    assert torch.equal(back.data.view(torch.uint8).flatten(), raw)


@both
def test_unwritten_memory_reads_as_nan(dialect: Dialect) -> None:
    assert fp8.fill_nan(torch.zeros(5).to(dialect.dtype)).float().isnan().all()


def make(dtype: torch.dtype, scale: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
    return Fp8Tensor(torch.zeros(4, 256).to(dtype), scale, dialect, ACTIVATION_BLOCK)


def test_bytes_of_the_other_dialect_are_a_mismatch() -> None:
    good = torch.zeros(4, 2, dtype=torch.uint8)
    for dialect, other in ((OCP, FNUZ), (FNUZ, OCP)):
        assert make(dialect.dtype, good, dialect).nbytes() == 4 * 256 + 8
        with pytest.raises(DialectMismatch, match=f"expected {dialect} bytes") as error:
            make(other.dtype, good, dialect)
        assert "transcode" in error.value.do


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float8_e5m2])
def test_data_that_is_no_fp8_dialect_is_refused_as_such(dtype: torch.dtype) -> None:
    with pytest.raises(NumericsError) as error:
        make(dtype, torch.zeros(4, 2, dtype=torch.uint8), OCP)
    assert not isinstance(error.value, DialectMismatch)


@pytest.mark.parametrize(
    "scale",
    [
        torch.zeros(4, 1, dtype=torch.uint8),
        torch.zeros(2, 4, dtype=torch.uint8),
        torch.zeros(4, 2),
        torch.zeros(4, 2).to(torch.float8_e8m0fnu),
    ],
)
def test_scale_of_another_shape_or_dtype_is_refused(scale: torch.Tensor) -> None:
    with pytest.raises(NumericsError, match=r"must be uint8 \[4, 2\]"):
        make(OCP.dtype, scale, OCP)
