"""The bundled model on the GPU of this machine against the reference on the CPU."""

from __future__ import annotations

import pytest

from isobath.doctor.shadow import check_layers
from isobath.doctor.whole import check_model
from isobath.engine.llm import BUNDLED, LLM

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(device="gpu")


def test_logits_and_greedy_tokens_are_the_references(llm: LLM) -> None:
    """The limits are measured on the spot; doctor/whole.py derives them."""
    for finding in check_model(llm, BUNDLED, advance=lambda *_: None, reproduce=""):
        assert finding.passed, f"{finding.name}: {finding.detail}"


def test_every_op_inside_the_model_agrees_with_its_reference(llm: LLM) -> None:
    for finding in check_layers(BUNDLED, llm, reproduce=""):
        assert finding.passed, f"{finding.name}: {finding.detail}"
