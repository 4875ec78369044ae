"""The doctor turns red for the right row: each fault of the field is planted once, and found.

Faults are planted as faulty Backend objects that are handed to what measures; nothing is patched.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from isobath.cache.view import CacheView
from isobath.doctor.gfx942 import check_gfx942
from isobath.doctor.report import Report, choices, reproduction, show
from isobath.doctor.whole import Finding
from isobath.numerics import ue8m0
from isobath.numerics.compare import Relative
from isobath.numerics.dialect import FNUZ, OCP, Dialect
from isobath.numerics.fp8 import Fp8Tensor, expand_scale
from isobath.ops.contract import Backend
from isobath.ops.examine import OpsResult, Wanted, check_ops, in_a_process, judge_group
from isobath.ops.measure import Subject, measure
from isobath.ops.table import contract
from isobath.ops.verdicts import verdict
from isobath.target import detect

CPU = detect("cpu")
CALL = Callable[..., Any]


def examined(
    op_name: str,
    fault: Callable[[CALL], CALL],
    case_names: tuple[str, ...],
    dialect: Dialect = OCP,
    *,
    decode: bool = False,
) -> Report:
    """The report on a backend made of the op's CPU kernel and a fault."""
    op, rows = contract(op_name), []
    right = op.backend("torch")
    planted = Backend(op_name, "planted", fault(right.call), right.prepare)
    for case in op.cases():
        if case.name in case_names:
            subject = Subject(op, planted, case, dialect, CPU.device)
            rows.append(verdict(subject, measure(subject, decode=decode), CPU))
    assert [row.case for row in rows] == list(case_names)
    chosen, refused = choices(rows)
    return Report({"arch": "cpu"}, None, OpsResult(rows, [], {}), [], chosen, refused, 0.0)


def only_red(report: Report) -> tuple[str, str, str]:
    """(case, note, text on the terminal) of the one red row."""
    (row,) = report.red
    console = Console(width=200)
    with console.capture() as text:
        show(report, console)
    assert report.exit_code == 1
    return row.case, row.note, text.get()


def other(dialect: Dialect) -> Dialect:
    return FNUZ if dialect == OCP else OCP


def mislabelled(call: CALL) -> CALL:
    """FNUZ bytes labelled OCP, or the other way round."""

    def attend(*, window: CacheView, **rest: Any) -> torch.Tensor:
        return call(window=replace(window, dialect=other(window.dialect)), **rest)

    return attend


@pytest.mark.parametrize("dialect", [OCP, FNUZ], ids=str)
def test_bytes_labelled_with_the_other_dialect_are_red(dialect: Dialect) -> None:
    case, _, text = only_red(examined("attend", mislabelled, ("window_only",), dialect))
    assert case == "window_only"
    command = (
        f"isobath doctor --op attend --case window_only --backend planted --dialect {dialect.name}"
    )
    assert command in text


def largest_value(call: CALL) -> CALL:
    """Scales chosen for the largest value of the dialect: in FNUZ 240 where 224 belongs."""

    def quantize_act(x: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
        groups = x.float().unflatten(-1, (-1, 128))
        scale = ue8m0.choose(groups.abs().amax(-1).clamp_min(1e-4), dialect.max)
        wide = expand_scale(ue8m0.decode(scale), x.shape, (1, 128))
        data = (x.float() / wide).clamp(-dialect.max, dialect.max).to(dialect.dtype)
        return Fp8Tensor(data, scale, dialect, (1, 128))

    return quantize_act


def test_scales_for_the_largest_fnuz_value_are_red_in_fnuz_alone() -> None:
    cases = ("amax_edges_fp32",)
    assert not examined("quantize_act", largest_value, cases, OCP).red
    assert only_red(examined("quantize_act", largest_value, cases, FNUZ))[0] == cases[0]


def routes_padding(call: CALL) -> CALL:
    """A padding lane is routed as if it were the token 0."""

    def route(x: torch.Tensor, gate: Any, token_ids: torch.Tensor, **rest: Any) -> Any:
        return call(x, gate, token_ids.clamp_min(0), **rest)

    return route


def test_padding_lane_that_is_routed_is_red() -> None:
    padded = next(c.name for c in contract("route").cases() if "padd" in c.name)
    report = examined("route", routes_padding, ("ragged", padded))
    assert only_red(report)[0] == padded


def reads_back(call: CALL) -> CALL:
    """Asks the device how many tokens are no padding, in every step."""

    def embed(token_ids: torch.Tensor, weight: torch.Tensor, *, copies: int) -> torch.Tensor:
        if int((token_ids >= 0).sum()) == 0:
            return weight.new_zeros(len(token_ids), copies, weight.shape[1])
        return call(token_ids, weight, copies=copies)

    return embed


def test_host_read_in_a_captured_region_is_red_and_named() -> None:
    _, note, text = only_red(examined("embed", reads_back, ("repeated",), decode=True))
    assert "may not run in a captured step" in note
    assert "graph_safe" in text
    assert not examined("embed", lambda call: call, ("repeated",), decode=True).red


def wraps_at_2_gib(call: CALL) -> CALL:
    """Byte offsets of rows in 32 bits: beyond 2 GiB they come out negative."""

    def window_insert(*, cache: CacheView, slots: torch.Tensor, **rest: Any) -> None:
        own = CacheView(
            cache.bytes.new_zeros(len(slots), cache.bytes.shape[1]), cache.layout, cache.dialect
        )
        call(cache=own, slots=torch.arange(len(slots)), **rest)
        flat, row_bytes = cache.bytes.view(-1), cache.bytes.shape[1]
        for row, slot in zip(own.bytes, slots, strict=True):
            start = int(slot.int() * row_bytes)  # int32 wraps
            if slot >= 0 and start >= 0:
                flat[start : start + row_bytes] = row

    return window_insert


def test_row_offsets_of_32_bits_are_red_beyond_2_gib_alone() -> None:
    report = examined("window_insert", wraps_at_2_gib, ("ragged", "far"))
    assert only_red(report)[0] == "far"
    assert not examined("window_insert", lambda call: call, ("far",)).red


def maps_experts(call: CALL) -> CALL:
    """Expert ids through a map that another backend's weights want."""

    def experts(
        x: Any, experts: torch.Tensor, weights: torch.Tensor, packed: Any, *rest: Any, **more: Any
    ) -> Any:
        count = int(experts.max()) + 1
        moved = torch.where(experts >= 0, (experts + 1) % count, experts)
        return call(x, moved, weights, packed, *rest, **more)

    def by_name(**args: Any) -> Any:
        names = ("x", "experts", "weights", "expert_weights")
        first = [args.pop(name) for name in names]
        return experts(*first, **args)

    return by_name


def test_expert_map_of_another_backend_is_red() -> None:
    assert only_red(examined("experts", maps_experts, ("two",)))[0] == "two"


def leaves_last_row(call: CALL) -> CALL:
    """Allocates its output and forgets to write the last row of it."""

    def rms_norm(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        out = torch.empty_like(x)
        out[:-1] = call(x[:-1], weight, eps=eps)
        return out

    return rms_norm


def test_output_row_that_nobody_wrote_is_red_although_memory_was_clean() -> None:
    assert only_red(examined("rms_norm", leaves_last_row, ("zero_row",)))[0] == "zero_row"


def behind(x: torch.Tensor) -> torch.Tensor:
    """The row behind a matrix, or no row where its memory ends."""
    end = x.storage_offset() + x.numel()
    there = x.untyped_storage().nbytes() // x.element_size() >= end + x.shape[1]
    return x.as_strided((int(there), x.shape[1]), x.stride(), end if there else 0)


def reads_one_row_more(call: CALL) -> CALL:
    """Multiplies what lies behind its input by zero instead of not reading it."""

    def rms_norm(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        return call(x, weight, eps=eps) + 0 * behind(x).sum(0)

    return rms_norm


def writes_one_row_more(call: CALL) -> CALL:
    """Zeroes the row behind its input, as a store without a mask does."""

    def rms_norm(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
        behind(x).zero_()
        return call(x, weight, eps=eps)

    return rms_norm


@pytest.mark.parametrize(
    ("fault", "why"), [(reads_one_row_more, "got [nan"), (writes_one_row_more, "memory outside")]
)
def test_access_behind_an_argument_is_red(fault: Callable[[CALL], CALL], why: str) -> None:
    assert why in only_red(examined("rms_norm", fault, ("ragged",)))[1]


def test_right_backends_are_green_and_every_row_names_its_command() -> None:
    steps: list[int] = []
    result = check_ops(
        CPU, Wanted(op="embed"), jobs=1, advance=lambda name, count: steps.append(count)
    )
    chosen, refused = choices(result.rows)
    report = Report({}, None, result, [], chosen, refused, 0.0)
    assert report.green and report.exit_code == 0
    assert sum(steps) == 2 * len(result.rows)
    assert all(row.us is not None for row in result.rows)
    assert json.loads(json.dumps(report.as_dict()))["chosen"]["embed"]["backend"] == "torch"
    assert reproduction(result.rows[0]).endswith("--backend torch --dialect ocp --device cpu")


def test_ops_judged_in_processes_of_their_own_get_the_same_verdicts() -> None:
    here, there = (
        check_ops(CPU, Wanted(op="embed"), jobs=jobs, advance=lambda *_: None) for jobs in (1, 2)
    )
    facts = [(row.case, row.dialect, row.agrees, row.deterministic) for row in there.rows]
    assert facts == [(r.case, r.dialect, r.agrees, r.deterministic) for r in here.rows]
    assert all(row.us is not None for row in there.rows)


def test_process_that_dies_leaves_its_exit_code_and_the_next_starts_after_it() -> None:
    assert in_a_process(CPU, Wanted(op="no such op"), 0) == 1
    every, rest = (judge_group(CPU, Wanted(op="embed"), start) for start in (0, 3))
    assert [row.case for row in rest] == [row.case for row in every][3:]


def test_finding_about_the_model_turns_the_report_red() -> None:
    finding = Finding("logits", False, "far off", "isobath doctor")
    report = Report({}, None, OpsResult([], [], {}), [finding], {}, {}, 0.0)
    assert report.exit_code == 1 and not report.green
    assert not replace(report, findings=[replace(finding, passed=True)]).exit_code
    assert replace(report, findings=[], refused={"embed": "wrong"}).exit_code == 1
    assert replace(report, findings=[]).exit_code == 1, "nothing was shown"


def test_machine_code_that_disagrees_in_the_emulator_is_red() -> None:
    """embed copies exactly; no error lies below a limit under zero, so that op must turn red."""
    right = contract("embed")
    never = replace(right, agree=Relative(-1.0))
    steps: list[str] = []
    good, bad = check_gfx942([right, never], lambda name, count: steps.append(name))
    assert good.passed and "one, ends agree" in good.detail
    assert not bad.passed and "case one" in bad.detail
    assert bad.reproduce == "isobath emulate --op embed" and len(steps) == 2
