"""The model's own calls of the Triton kernels, in the interpreter: each agrees with its reference.

Cases judge kernels on inputs that somebody thought of; here they get what a decode step gives them.
"""

from __future__ import annotations

import pytest

from isobath.ops.table import table_names
from tests.support.interpreted_model import decoded

LONG = 3000
"""Tokens of context, beyond the 4 * index_topk up to which no entry has to be chosen."""


def check(dialect: str, context: int, layers: int) -> dict[str, int]:
    found = decoded(dialect, context, layers)
    assert found["finite"] and not found["wrong"], found["wrong"]
    calls: dict[str, int] = found["calls"]
    return calls


def test_every_op_of_a_decode_step_agrees_inside_the_model() -> None:
    """Four layers hold every kind of attention and both ways of routing."""
    assert set(check("fnuz", LONG, 4)) == set(table_names())


@pytest.mark.nightly
@pytest.mark.parametrize("context", [600, LONG])
@pytest.mark.parametrize("dialect", ["ocp", "fnuz"])
def test_every_layer_of_the_bundled_shape_agrees(dialect: str, context: int) -> None:
    calls = check(dialect, context, 0)
    assert calls["hyper_enter"] == 2 * calls["moe"]
