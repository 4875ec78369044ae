"""The measuring machinery can tell: each way to be wrong is planted once and must be found.

The backends here are deliberately bad implementations of real ops, judged on the ops' real cases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from isobath.numerics.dialect import FNUZ, OCP, Dialect
from isobath.numerics.fp8 import Fp8Tensor, dequantize, expand_scale
from isobath.numerics.transcode import relabel
from isobath.numerics.ue8m0 import choose as choose_scale
from isobath.numerics.ue8m0 import decode
from isobath.ops.contract import Backend, keep
from isobath.ops.measure import Measurement, Subject, measure, row_groups, same_bits
from isobath.ops.operands import unrounded
from isobath.ops.rms_norm.torch_kernel import rms_norm
from isobath.ops.table import contract

CPU = torch.device("cpu")


def judged(
    op_name: str,
    call: Callable[..., Any],
    case_name: str = "ragged",
    dialect: Dialect = OCP,
    *,
    timed: bool = False,
) -> Measurement:
    op = contract(op_name)
    (case,) = (case for case in op.cases() if case.name == case_name)
    bad = Backend(op_name, "planted", call, keep)
    return measure(Subject(op, bad, case, dialect, CPU), timed=timed)


def test_good_backend_passes_everything_measurable_and_is_timed() -> None:
    result = judged("rms_norm", rms_norm, timed=True)
    assert result.agrees and result.deterministic and result.batch_invariant
    assert result.timing is not None
    assert 0 < result.timing.p10 <= result.timing.median <= result.timing.p90
    assert result.note == ""


def test_graph_safety_is_not_measured_on_a_cpu() -> None:
    assert judged("rms_norm", rms_norm).graph_safe is None


def test_wrong_backend_disagrees_and_has_no_time() -> None:
    def forgets_the_weight(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        return rms_norm(x, torch.ones_like(weight), eps=eps)

    result = judged("rms_norm", forgets_the_weight, timed=True)
    assert not result.agrees
    assert result.timing is None
    assert "worst at" in result.note


def test_one_ruined_row_among_many_disagrees() -> None:
    def ruins_the_last_row(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        out = rms_norm(x, weight, eps=eps)
        out[-1] = 0
        return out

    result = judged("rms_norm", ruins_the_last_row, "tall")
    assert not result.agrees
    assert "1 of 67" in result.note


def test_wrong_dtype_disagrees_even_with_right_values() -> None:
    def never_rounds(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        return rms_norm(x, weight, eps=eps).float()

    result = judged("rms_norm", never_rounds)
    assert not result.agrees
    assert "dtype" in result.note


def test_backend_that_raises_gets_a_verdict() -> None:
    def raises(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        raise RuntimeError("out of registers")

    result = judged("rms_norm", raises)
    assert not result.agrees
    assert result.note == "RuntimeError: out of registers"
    assert result.deterministic is None


def test_backend_that_scribbles_on_its_inputs_disagrees() -> None:
    def in_place(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        out = rms_norm(x, weight, eps=eps)
        x.zero_()
        return out

    result = judged("rms_norm", in_place)
    assert not result.agrees
    assert result.note == "changes its inputs x"


def test_nondeterministic_backend_is_caught_although_it_agrees() -> None:
    calls = []

    def last_bit_by_turns(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        calls.append(None)
        out = rms_norm(x, weight, eps=eps)
        out.view(torch.int16)[0, 0] ^= len(calls) % 2
        return out

    result = judged("rms_norm", last_bit_by_turns)
    assert result.agrees
    assert result.deterministic is False
    assert "two runs" in result.note


def test_batch_dependent_backend_is_caught_although_it_agrees() -> None:
    def last_bit_by_company(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        out = rms_norm(x, weight, eps=eps)
        out.view(torch.int16)[:, 0] ^= len(x) % 2
        return out

    result = judged("rms_norm", last_bit_by_company)
    assert result.agrees and result.deterministic
    assert result.batch_invariant is False
    assert "rows beside it" in result.note


def test_batch_invariance_of_a_single_row_is_not_measured() -> None:
    assert judged("rms_norm", rms_norm, "one").batch_invariant is None
    assert judged("rms_norm", rms_norm, "empty").batch_invariant is None


def ignores_dialect(x: Fp8Tensor, weight: Fp8Tensor) -> torch.Tensor:
    """Reads the activations' bytes as OCP whatever they are."""
    if x.dialect != OCP:
        x = relabel(x, OCP)
    return (dequantize(x) @ dequantize(weight).T).to(torch.bfloat16)


def test_dialect_confused_backend_passes_in_one_dialect_and_is_twice_too_large_in_the_other() -> (
    None
):
    assert judged("fp8_linear", ignores_dialect, dialect=OCP).agrees
    result = judged("fp8_linear", ignores_dialect, dialect=FNUZ)
    assert not result.agrees
    # |2y - y| / |y| = 1, give or take the two bf16 roundings of 2^-9
    assert result.error == pytest.approx(1.0, abs=2**-8)


def quantizes_to_largest(x: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
    """The field's other rule: scales from the largest value of the dialect, 240 in FNUZ."""
    groups = x.float().unflatten(-1, (-1, 128))
    scale = choose_scale(groups.abs().amax(-1).clamp_min(1e-4), dialect.max)
    wide = expand_scale(decode(scale), x.shape, (1, 128))
    data = (x.float() / wide).clamp(-dialect.max, dialect.max).to(dialect.dtype)
    return Fp8Tensor(data, scale, dialect, (1, 128))


def test_fnuz_scales_chosen_for_its_largest_value_are_caught() -> None:
    case = "amax_edges_fp32"
    assert judged("quantize_act", quantizes_to_largest, case, OCP).agrees
    assert not judged("quantize_act", quantizes_to_largest, case, FNUZ).agrees


def test_format_error_is_measured_against_the_sources() -> None:
    """Rounding both operands to 4-bit significands: each product errs by up to 2^-4 + 2^-4, on
    average less; three orders above the kernel's own error and below a tenth."""
    op = contract("fp8_linear")
    good = op.backend("torch")
    (case,) = (case for case in op.cases() if case.name == "ragged")
    result = measure(Subject(op, good, case, OCP, CPU))
    assert result.format_error is not None
    assert 2**-8 < result.format_error < 2**-3
    assert result.error < result.format_error / 4


def test_unrounded_arguments_are_the_values_that_were_quantised() -> None:
    args = contract("fp8_linear").cases()[1].make(FNUZ, CPU, torch.Generator().manual_seed(1))
    wide = unrounded(args)
    for name in ("x", "weight"):
        rounded = dequantize(args[name])
        assert wide[name].dtype == torch.float32
        # half a step of a 4-bit significand, 2^-4 of the value; below the normal range half of the
        # smallest code, 2^-10 of quant_max's scale: a block's amax times 2^-9 / 1.75 at most
        bound = wide[name].abs() * 2**-4 + wide[name].abs().amax() * 2**-10
        assert bool(((wide[name] - rounded).abs() <= bound).all())
        assert not torch.equal(wide[name], rounded)


@pytest.mark.parametrize("num_rows", [2, 3, 5, 67])
def test_row_groups_are_ascending_true_parts_that_cover_every_row(num_rows: int) -> None:
    groups = row_groups(num_rows)
    assert all(group == sorted(set(group)) for group in groups)
    assert all(0 < len(group) < num_rows for group in groups)
    assert set().union(*groups) == set(range(num_rows))
    assert any(len(group) == 1 for group in groups)


def test_same_bits_tells_zeros_nans_and_dtypes_apart() -> None:
    zero, nan = torch.tensor([0.0]), torch.tensor([float("nan")])
    assert same_bits({"a": nan}, {"a": nan.clone()})
    assert not same_bits({"a": zero}, {"a": -zero})
    assert not same_bits({"a": zero}, {"a": zero.int()})
    assert not same_bits({"a": zero}, {"b": zero})
    assert not same_bits({"a": zero}, {"a": torch.zeros(1, 1)})
