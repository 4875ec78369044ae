"""experts rounds where its contract says: each expert's row to bf16, then their sum."""

from __future__ import annotations

import pytest
import torch

from isobath.numerics.dialect import DIALECTS
from isobath.ops.experts.cases import make
from isobath.ops.table import contract


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("tokens", [1, 9, 70], ids=["gathered", "dense", "sorted"])
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_rows_of_experts_are_rounded_before_they_are_added(
    backend: str, tokens: int, dialect: str
) -> None:
    """A slot alone gives its rounded row, so the sum of such rows is the whole result, bit for bit.
    With unrounded rows some of the 256 values of a token would round to a neighbour."""
    op = contract("experts").backend(backend)
    args = make(tokens, 8, 3)(
        DIALECTS[dialect], torch.device("cpu"), torch.Generator().manual_seed(5)
    )
    args["expert_weights"], shared = op.prepare(args["expert_weights"]), args["shared"]
    total = torch.zeros(tokens, 256)
    for slot in range(3):
        alone = torch.full_like(args["experts"], -1)
        alone[:, slot] = args["experts"][:, slot]
        total += op(**args | {"experts": alone, "shared": None})
    total += 0 if shared is None else shared
    assert torch.equal(op(**args), total.to(torch.bfloat16))
