"""What every FP8 and UE8M0 byte means, judged by ml_dtypes and by rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch

from isobath.errors import NumericsError
from isobath.numerics import DIALECTS, FNUZ, OCP, Dialect, decode_table, dialect_of, ue8m0

BYTES = np.arange(256, dtype=np.uint8)
AUTHORITY = {"ocp": ml_dtypes.float8_e4m3fn, "fnuz": ml_dtypes.float8_e4m3fnuz}

both = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)


def bits(values: torch.Tensor | np.ndarray) -> list[int]:
    """float32 bits with every NaN as one, so that equality is bit equality."""
    array = np.asarray(values, dtype=np.float32)
    return np.where(np.isnan(array), 0x7FC00000, array.view(np.uint32)).tolist()


@both
def test_every_byte_decodes_as_ml_dtypes_does(dialect: Dialect) -> None:
    assert bits(decode_table(dialect)) == bits(BYTES.view(AUTHORITY[dialect.name]))


@both
def test_torch_cast_decodes_every_byte_like_the_table(dialect: Dialect) -> None:
    raw = torch.arange(256, dtype=torch.uint8).view(dialect.dtype)
    assert bits(raw.float()) == bits(decode_table(dialect))


@both
def test_facts_of_dialect_follow_from_its_bytes(dialect: Dialect) -> None:
    values = decode_table(dialect)
    assert tuple(values.isnan().nonzero().flatten().tolist()) == dialect.nan_bytes
    assert values.nan_to_num(0).max().item() == dialect.max
    assert dialect.quiet_nan in dialect.nan_bytes
    assert dialect.negative_zero == (bits(values)[0x80] == 0x80000000)
    assert dialect.quant_max in values
    assert dialect_of(dialect.dtype) is dialect


def test_ocp_is_twice_fnuz_for_253_bytes() -> None:
    ocp, fnuz = decode_table(OCP), decode_table(FNUZ)
    finite = ocp.isfinite() & fnuz.isfinite()
    assert int(finite.sum()) == 253
    assert torch.equal(ocp[finite], 2 * fnuz[finite])


def test_quant_max_is_the_same_byte_in_both_dialects() -> None:
    places = [decode_table(d).eq(d.quant_max).nonzero().flatten().tolist() for d in (OCP, FNUZ)]
    assert places == [[0x7E], [0x7E]]


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.uint8, torch.bfloat16])
def test_dtype_that_is_no_dialect_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(NumericsError, match="float8_e4m3fn or float8_e4m3fnuz"):
        dialect_of(dtype)


def test_every_scale_byte_decodes_as_ml_dtypes_does() -> None:
    ours = ue8m0.decode(torch.arange(256, dtype=torch.uint8))
    assert bits(ours) == bits(BYTES.view(ml_dtypes.float8_e8m0fnu))
    assert ours[0].item() == 2.0**-127 and ours[254].item() == 2.0**127 and ours[255].isnan()


def test_reciprocal_of_every_scale_is_exact() -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    product = ue8m0.decode(raw) * ue8m0.reciprocal(raw)
    assert bits(product) == bits([1.0] * 255 + [np.nan])


def smallest_exponent(amax: float, limit: float) -> int:
    """Smallest e with amax <= limit * 2**e, in rational arithmetic."""
    exponent = -160
    while Fraction(amax) > Fraction(limit) * Fraction(2) ** exponent:
        exponent += 1
    return exponent


@pytest.mark.parametrize("limit", [OCP.quant_max, FNUZ.quant_max, 6.0])
def test_scale_is_the_smallest_that_holds_amax(limit: float) -> None:
    """At, and one ulp to either side of, every power of two and every power of two times limit."""
    edges = np.float32(
        [m * 2.0**k for k in range(-126, 128) for m in (1.0, limit / 2 ** np.floor(np.log2(limit)))]
    )
    around = np.concatenate([np.nextafter(edges, np.float32(t)) for t in (0, np.inf)] + [edges])
    amax = around[np.isfinite(around) & (around >= np.finfo(np.float32).tiny)]
    got = ue8m0.choose(torch.from_numpy(amax), limit).tolist()
    want = [max(0, smallest_exponent(a, limit) + ue8m0.BIAS) for a in amax.tolist()]
    assert len(amax) > 1500 and got == want


@pytest.mark.parametrize("amax", [float("nan"), float("inf")])
def test_scale_of_block_that_is_not_finite_is_nan(amax: float) -> None:
    assert ue8m0.choose(torch.tensor([amax, 1.0]), OCP.quant_max).tolist() == [255, 119]
