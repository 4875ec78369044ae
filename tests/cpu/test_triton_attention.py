"""Triton backends of attention and the indexer in the interpreter: the cases that are quick there.

What the compilers make of the same kernels is judged by the cross-compiler, what a GPU makes of
them by the same cases on one.
"""

from __future__ import annotations

import pytest

from tests.support.interpreter import BY_DAY_AND_NIGHT, judged

CASES = {
    "attend": ("empty", "first_token", "nan_window"),
    "sparse_attention": ("one", "plain"),
    "index_query": ("empty", "ragged", "real_heads", "small", "plain", "zero_head", "nan_in"),
    "index_logits": ("empty", "nothing_visible", "real_heads", "mixed", "plain", "nan_key"),
    "index_topk": ("empty", "no_entries", "fewer_than_k", "two_levels_ties", "nan_in", "infinite"),
}


@pytest.mark.parametrize("dialect", BY_DAY_AND_NIGHT)
@pytest.mark.parametrize("op", CASES)
def test_triton_backend_keeps_its_contract_in_the_interpreter(op: str, dialect: str) -> None:
    """The tolerance is the op's `agree`, derived beside each contract."""
    seen = list(judged(op, CASES[op], dialect))
    assert len(seen) == len(CASES[op])
    for row in seen:
        where = f"{op} {row['case']} {row['dialect']}: {row['note']}"
        assert row["agrees"] and row["deterministic"], where
        assert row["batch_invariant"] is not False, where
