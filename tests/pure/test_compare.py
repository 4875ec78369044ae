"""The comparison tools: what agrees, what does not, and what a report shows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isobath.numerics.compare import Agreement, Exact, Relative, TopKSet, Ulp

NAN, INF = float("nan"), float("inf")
WAYS = [Exact(), Ulp(0), Ulp(3), Relative(0.5), Relative(0.5, per="tensor")]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values])


@every_way
@pytest.mark.parametrize("special", [NAN, INF, -INF])
def test_special_value_agrees_with_itself_and_nothing_else(way: Agreement, special: float) -> None:
    assert way.compare(row(1.0, special), row(1.0, special)).agrees
    largest = torch.finfo(torch.float32).max
    for other in (0.0, 1.0, largest, -largest, NAN, INF, -INF):
        if other == special or (math.isnan(other) and math.isnan(special)):
            continue
        for got, want in ((special, other), (other, special)):
            report = way.compare(row(1.0, got), row(1.0, want))
            assert not report.agrees, (got, want)
            assert report.error == (1.0 if way == Exact() else INF)


@every_way
def test_zeros_agree_whatever_their_sign(way: Agreement) -> None:
    assert way.compare(row(0.0, -0.0), row(-0.0, 0.0)).error == 0


@every_way
def test_another_shape_does_not_agree(way: Agreement) -> None:
    report = way.compare(torch.zeros(2, 3), torch.zeros(3, 2))
    assert not report.agrees and str(report) == "shape [2, 3], expected [3, 2]"


@every_way
def test_empty_tensors_agree(way: Agreement) -> None:
    assert way.compare(torch.zeros(0, 4), torch.zeros(0, 4)).agrees


def test_report_shows_first_and_worst_mismatch() -> None:
    want = torch.arange(12.0).view(3, 4)
    got = want.clone()
    got[0, 2] = torch.nextafter(got[0, 2], got[0, 2] + 1)
    got[2, 1] = 10.0
    report = Ulp(0).compare(got, want)
    assert not report.agrees
    assert report.text.startswith("2 of 12 off by more than 0")
    assert "first at [0, 2]: got 2.00000024, expected 2\n" in report.text
    assert "worst at [2, 1]: got 10, expected 9" in report.text


def test_report_of_rows_shows_the_start_of_the_row() -> None:
    want = torch.ones(3, 6)
    got = want.clone()
    got[1], got[2, 5] = 1.5, 100.0
    text = Relative(0.1).compare(got, want).text
    assert "2 of 3 off by more than 0.1" in text
    assert "first at [1]: got [1.5, 1.5, 1.5, 1.5, …], expected [1, 1, 1, 1, …]" in text
    assert "worst at [2]" in text


def test_exact_sees_one_bit() -> None:
    one = row(1.0, 2.0)
    assert Exact().compare(one, one.clone()).agrees
    assert not Exact().compare(one, torch.nextafter(one, 3 * one)).agrees


def test_exact_judges_integers() -> None:
    assert Exact().compare(torch.tensor([1, 2]), torch.tensor([1, 2])).agrees
    assert Exact().compare(torch.tensor([1, 2]), torch.tensor([2, 2])).error == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(start=st.floats(-(2.0**100), 2.0**100, width=32), steps=st.integers(0, 40))
def test_ulp_counts_representable_values(dtype: torch.dtype, start: float, steps: int) -> None:
    want = torch.tensor([start]).to(dtype)
    got = want.clone()
    for _ in range(steps):
        got = torch.nextafter(got, torch.tensor([INF], dtype=dtype))
    assert Ulp(0).compare(got, want).error == steps
    assert Ulp(steps).compare(got, want).agrees
    assert steps == 0 or not Ulp(steps - 1).compare(got, want).agrees


def test_ulp_counts_through_zero() -> None:
    """From the smallest negative number over the one zero to the smallest positive: two."""
    tiny = torch.tensor([2.0**-149])
    assert Ulp(2).compare(tiny, -tiny).error == 2


def test_relative_is_the_worst_row_and_not_the_mean() -> None:
    want = torch.ones(1000, 8)
    got = want.clone()
    got[500] *= 1.25
    assert Relative(0.2).compare(got, want).error == 0.25
    assert not Relative(0.2).compare(got, want).agrees
    # over the whole tensor the same fault is 0.25 / sqrt(1000)
    whole = Relative(0.2, per="tensor").compare(got, want)
    assert whole.agrees and whole.error == pytest.approx(0.25 / math.sqrt(1000))


def test_relative_row_that_should_be_zero_must_be_zero() -> None:
    want = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert Relative(0.1).compare(want.clone(), want).error == 0
    assert Relative(0.1).compare(want + torch.tensor([[1e-30, 0], [0, 0]]), want).error == INF


@given(st.floats(1e-6, 0.5), st.integers(-60, 60))
def test_relative_does_not_depend_on_the_size_of_a_row(part: float, exponent: int) -> None:
    want = torch.tensor([[3.0, 4.0]], dtype=torch.float64) * 2.0**exponent
    got = want + torch.tensor([[0.0, 5.0 * part]], dtype=torch.float64) * 2.0**exponent
    # rounding of the float64 sum: 2^-53 relative to a value at most 1/part times the difference
    assert Relative(1.0).compare(got, want).error == pytest.approx(part, rel=2**-52 / part)


@given(st.permutations(range(8)), st.permutations(range(8)))
def test_topk_set_ignores_order_and_what_padding_is_called(a: list[int], b: list[int]) -> None:
    padding = torch.tensor([[-1, -7]])
    got = torch.cat((torch.tensor([a]), padding), -1)
    want = torch.cat((padding.flip(-1) - 3, torch.tensor([b])), -1)
    assert TopKSet().compare(got, want).agrees


@pytest.mark.parametrize(
    "got", [[1, 2, 4], [1, 2, -1], [1, 1, 2], [0, 2, 3]], ids=["other", "fewer", "twice", "zero"]
)
def test_topk_set_sees_another_member(got: list[int]) -> None:
    want = torch.tensor([[5, 6, 7], [3, 2, 1]])
    report = TopKSet().compare(torch.tensor([[5, 6, 7], got]), want)
    assert not report.agrees and "first at [1]" in report.text
