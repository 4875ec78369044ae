"""The bundled model predicts text, and a mistaken dialect is seen: as an error where tags meet, and
as a measured loss of quality where a test forces it through."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from isobath import LLM, SamplingParams
from isobath.engine.llm import BUNDLED
from isobath.engine.score import score
from isobath.model.load import load
from isobath.model.text import Text
from isobath.numerics import FNUZ, OCP, Fp8Tensor, dequantize, relabel
from isobath.ops.contract import Backend
from isobath.ops.table import OpTable, bind

CPU = torch.device("cpu")
PAGE = (Path(__file__).parents[1] / "data" / "heldout.txt").read_text()
"""A page of documentation written for this test: in the manner of the training text, not of it."""


def bits_per_byte(logits: torch.Tensor, ids: list[int]) -> float:
    nats = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum")
    return float(nats) / math.log(2) / len(PAGE.encode())


def score_with(ops: OpTable) -> float:
    """Bits per byte of the bundled model with the op table `ops`, native numerics, OCP."""
    config, weights = load(BUNDLED, numerics="native", dialect=OCP, device=CPU, ops=ops)
    ids = Text(BUNDLED).encode(PAGE)
    return bits_per_byte(score(config, weights, ops, CPU, ids, len(ids)), ids)


@pytest.fixture(scope="module")
def right() -> float:
    return score_with(bind("torch"))


def test_the_bundled_model_predicts_a_page_it_has_never_seen(right: float) -> None:
    """Measured: 0.979, with 5 % of room for other machines' rounding. Bytes drawn evenly cost 8."""
    assert right < 1.05 * 0.979


def test_exact_numerics_predict_it_about_as_well(right: float) -> None:
    """Quantised activations and caches cost 0.2 % on 15 rows of held-out text (0.7877 bits against
    0.7864); 2 % allows for the small page."""
    ids = Text(BUNDLED).encode(PAGE)
    exact = LLM(numerics="exact", max_batched_tokens=len(ids)).score(ids)
    assert abs(bits_per_byte(exact, ids) / right - 1) < 0.02


def halve(weight: Fp8Tensor) -> Fp8Tensor:
    """What an FNUZ reader makes of OCP bytes without negative zeros, written in OCP."""
    spared = clear_negative_zeros(weight)
    halved = Fp8Tensor(spared.data, weight.scale - 1, OCP, weight.quant_block)
    assert torch.equal(dequantize(relabel(spared, FNUZ)), dequantize(halved))
    return halved


def clear_negative_zeros(weight: Fp8Tensor) -> Fp8Tensor:
    raw = weight.data.view(torch.uint8)
    data = raw.masked_fill(raw == 0x80, 0).view(weight.dialect.dtype)
    return Fp8Tensor(data, weight.scale, weight.dialect, weight.quant_block)


def mislabelled(ops: OpTable, names: tuple[str, ...]) -> OpTable:
    """`ops` with these ops' OCP weights read as if their bytes were FNUZ, negative zeros spared."""

    def forced(real: Backend) -> Backend:
        def prepare(weight: Any) -> Any:
            return real.prepare(halve(weight) if isinstance(weight, Fp8Tensor) else weight)

        return Backend(real.op, "mislabelled", real.call, prepare)

    return replace(ops, **{name: forced(getattr(ops, name)) for name in names})


@pytest.mark.parametrize(
    ("names", "loss"),
    [(("fp8_linear", "attention_in", "moe"), 0.240), (("grouped_project",), 0.046)],
)
def test_weights_forced_through_in_the_wrong_dialect_cost_bits(
    right: float, names: tuple[str, ...], loss: float
) -> None:
    """Every value halves and the text stays fluent, which is why a tag must catch it. The losses
    were measured on this page (0.9786 bits per byte become 1.2138 and 1.0240); a quarter of the
    loss is room for other machines' rounding, and 0 is far outside."""
    wrong = score_with(mislabelled(bind("torch"), names))
    assert wrong / right - 1 == pytest.approx(loss, rel=0.25)


def test_negative_zeros_of_the_wrong_dialect_are_nan() -> None:
    """0x80 is -0 in OCP and NaN in FNUZ: the one fault of the mistake that is loud."""
    weight = Fp8Tensor(
        torch.full((128, 128), 0x80, dtype=torch.uint8).view(torch.float8_e4m3fn),
        torch.full((1, 1), 127, dtype=torch.uint8),
        OCP,
        (128, 128),
    )
    assert relabel(weight, FNUZ).data.float().isnan().all()


def test_greedy_generation_is_the_same_in_both_dialects_and_in_any_company() -> None:
    params = SamplingParams(max_tokens=24)
    prompts = ["The json module", "import os\n", "A queue keeps"]
    ocp = LLM(dialect="ocp").generate(prompts, params)
    fnuz = LLM(dialect="fnuz").generate(prompts, params)
    assert [c.token_ids for c in ocp] == [c.token_ids for c in fnuz]
    assert all(c.text for c in ocp)
