"""The indexer ops, and what a decode step of the sparse path may not do: read a value back to the
host, or size anything by one.

Runs the torch backends at small geometry; agreement with the references is judged on the cases.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from isobath.cache.layout import index_row
from isobath.cache.view import Pages, allocate, write_rows
from isobath.numerics import DIALECTS, FNUZ, OCP, Dialect, fp8, ue8m0
from isobath.ops.contract import Arguments
from isobath.ops.sparse_attention.cases import Inputs
from isobath.ops.table import contract

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)


def torch_op(name: str) -> Any:
    return contract(name).backend("torch")


def indexer_inputs(dialect: Dialect, tokens: int) -> Arguments:
    """tokens tokens of one sequence, the last of which sees 21 of 24 entries."""
    source, layout = torch.Generator().manual_seed(3), index_row(32)
    cache = allocate(32, layout, dialect, CPU)
    table = torch.tensor([[3, 1, 2]])
    pages = Pages(table, 8)
    rows = pages.rows(torch.tensor(0), torch.arange(24))
    write_rows(cache, rows, torch.randn(24, 32, generator=source))
    q = fp8.quantize(torch.randn(tokens, 4, 32, generator=source), dialect, (1, 32))
    weights = torch.randn(tokens, 4, generator=source) * ue8m0.decode(q.scale).squeeze(-1)
    visible = torch.arange(22 - tokens, 22)
    return {
        "q": q.data,
        "weights": weights,
        "cache": cache,
        "pages": pages,
        "sequence": torch.zeros(tokens, dtype=torch.int64),
        "visible": visible,
    }


@pytest.mark.parametrize("tokens", [1, 9])
@BOTH
def test_index_entries_beyond_visible_never_matter(dialect: Dialect, tokens: int) -> None:
    args = indexer_inputs(dialect, tokens)
    expected = torch_op("index_logits")(**args)
    hidden = args["pages"].rows(torch.tensor(0), torch.arange(21, 24))
    args["cache"].bytes[hidden] = 0xFF
    args["cache"].bytes[0] = dialect.quiet_nan
    assert torch.equal(torch_op("index_logits")(**args), expected)
    best = torch_op("index_topk")(expected, args["visible"], k=8)
    assert (best < args["visible"].unsqueeze(1)).all()


@pytest.mark.parametrize("tokens", [1, 9])
def test_index_scores_are_equal_in_both_dialects(tokens: int) -> None:
    scores = [torch_op("index_logits")(**indexer_inputs(d, tokens)) for d in (OCP, FNUZ)]
    assert torch.equal(*scores)


# ---- decode reads nothing back

READS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive",
    "unique_dim", "equal", "repeat_interleave",
}  # fmt: skip


class NoReads(TorchDispatchMode):
    """Fails on any call that reads a tensor's values on the host or to size its result."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in READS, f"{func} reads values back"
        indexed = func.overloadpacket.__name__ in ("index", "index_put", "index_put_")
        masks = args[1] if indexed else ()
        assert not any(m is not None and m.dtype == torch.bool for m in masks), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("topk", [0, 8])
@pytest.mark.parametrize("other", [False, True])
def test_a_decode_step_reads_nothing_back(topk: int, other: bool) -> None:
    inputs = Inputs(((50, 1), (200, 1)), width=64, rope=16, topk=topk, other=other)
    args = inputs(OCP, CPU, torch.Generator().manual_seed(0))
    indexer = indexer_inputs(OCP, 1)
    torch_op("sparse_attention")(**args)  # fills the memoised tables
    torch_op("index_logits")(**indexer)
    with NoReads():
        torch_op("sparse_attention")(**args)
        scores = torch_op("index_logits")(**indexer)
        torch_op("index_topk")(scores, indexer["visible"], k=8)


def test_the_check_for_reads_notices_a_prefill() -> None:
    args = Inputs(((3, 20),), width=64, rope=16)(OCP, CPU, torch.Generator().manual_seed(0))
    with NoReads(), pytest.raises(AssertionError, match="reads values back"):
        torch_op("sparse_attention")(**args)
