"""The doctor's look at a whole model: what rounding explains is green, what it does not is red."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from isobath.cache.view import CacheView
from isobath.doctor.shadow import Shadow, check_layers
from isobath.doctor.whole import PROMPTS, STEPS, check_model, judge_logits, judge_tokens
from isobath.engine.llm import BUNDLED, LLM
from isobath.engine.score import score
from isobath.model.load import load
from isobath.numerics.dialect import FNUZ, OCP
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.contract import Backend, keep
from isobath.ops.table import OpTable, bind
from isobath.target import detect

CPU = detect("cpu")


def test_the_bundled_model_on_this_cpu_is_green() -> None:
    steps: list[int] = []
    llm = LLM(device="cpu")
    found = check_model(
        llm, BUNDLED, advance=lambda name, count: steps.append(count), reproduce="again"
    )
    assert [finding.name for finding in found] == ["logits", "greedy tokens"]
    assert all(finding.passed for finding in found), found
    assert sum(steps) == STEPS


def test_logits_farther_off_than_quantisation_moves_them_twice_are_red() -> None:
    generator = torch.Generator().manual_seed(1)
    want = {(1, 2): torch.randn(2, 50, generator=generator, dtype=torch.float64)}
    step = 0.01 * torch.randn(2, 50, generator=generator, dtype=torch.float64)
    exact = {(1, 2): want[1, 2] + step}
    assert judge_logits({(1, 2): want[1, 2] - step}, want, exact, "").passed
    assert not judge_logits({(1, 2): want[1, 2] - 2.1 * step}, want, exact, "").passed
    assert not judge_logits({(1, 2): want[1, 2] * torch.nan}, want, exact, "").passed


@pytest.mark.parametrize("op", ["fp8_linear", "grouped_project", "attend"])
def test_one_op_in_the_wrong_dialect_turns_the_whole_model_red(op: str) -> None:
    """Weights halved, as OCP bytes read as FNUZ are, or the window read so."""
    right, ids = bind("torch"), tuple(LLM(device="cpu").text.encode(PROMPTS[2]))
    real = getattr(right, op)

    def halved(weight: Any) -> Any:
        if isinstance(weight, Fp8Tensor):
            weight = Fp8Tensor(weight.data, weight.scale - 1, weight.dialect, weight.quant_block)
        return real.prepare(weight)

    def other_window(q: torch.Tensor, window: CacheView, *args: Any, **kwargs: Any) -> Any:
        return real(q, replace(window, dialect=FNUZ), *args, **kwargs)

    faulty = Backend(op, "planted", other_window if op == "attend" else real.call, halved)

    def logits(table: OpTable, numerics: str = "native") -> dict[tuple[int, ...], torch.Tensor]:
        config, weights = load(
            BUNDLED, numerics=numerics, dialect=OCP, device=CPU.device, ops=table
        )
        return {ids: score(config, weights, table, CPU.device, ids, len(ids)).double()}

    want, exact = logits(bind("reference")), logits(bind("reference"), "exact")
    assert judge_logits(logits(right), want, exact, "").passed
    assert not judge_logits(logits(replace(right, **{op: faulty})), want, exact, "").passed


def test_greedy_token_that_rounding_does_not_explain_is_red() -> None:
    want = {(0, 1, 2): torch.tensor([[0.0, 3.0, 1.0], [0.0, 1.0, 1.1], [0.0, 0.0, 0.0]]).double()}
    got = {(0, 1, 2): want[0, 1, 2] + 0.01}
    assert judge_tokens([(0, 1, 2)], [0], got, want, "").passed
    close, text = {(0, 1, 1): want[0, 1, 2]}, (0, 1, 1)
    assert not judge_tokens([text], [0], {text: close[text] + 0.01}, close, "").passed
    assert judge_tokens([text], [0], {text: close[text] + 0.06}, close, "").passed


def test_layers_name_the_op_and_the_layer_that_is_wrong() -> None:
    llm = LLM(device="cpu", dialect="ocp")
    assert all(finding.passed for finding in check_layers(BUNDLED, llm, reproduce=""))
    right = llm.ops.attend
    calls: list[None] = []

    def from_the_third_layer(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(None)
        out: torch.Tensor = right(*args, **kwargs)
        return out * 2 if len(calls) > 2 else out

    faulty = replace(llm.ops, attend=Backend("attend", "planted", from_the_third_layer, keep))
    findings = check_layers(BUNDLED, llm, reproduce="again", table=faulty)
    (wrong,) = [finding for finding in findings if not finding.passed]
    assert wrong.name == "layers: attend" and "first in layer 2" in wrong.detail


def test_shadow_gives_the_model_the_judged_results() -> None:
    table = Shadow().table(bind("torch"))
    x = torch.randn(3, 64)
    weight = table.linear.prepare(torch.randn(5, 64))
    assert torch.equal(table.linear(x, weight), bind("torch").linear(x, weight.prepared))
