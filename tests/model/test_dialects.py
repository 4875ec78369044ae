"""One checkpoint, two dialects, the same numbers; and what happens when a dialect is mistaken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isobath import LLM, DialectMismatch
from isobath.cache.pool import allocate_pool
from isobath.model.batch import BatchBuilder, Chunk
from isobath.model.load import load
from isobath.model.v4 import forward
from isobath.numerics import DIALECTS, FNUZ, OCP
from isobath.ops.table import bind
from tests.support.checkpoints import random_checkpoint

CPU = torch.device("cpu")
TOKENS = 300


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dialects")
    random_checkpoint(folder, seed=4)
    return folder


def prompt(llm: LLM) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, llm.config.vocab_size, (TOKENS,), generator=generator).tolist()


@pytest.mark.parametrize(("tokens", "chunk_size"), [(TOKENS, TOKENS), (TOKENS, 37), (140, 1)])
def test_native_logits_are_bit_identical_in_both_dialects(
    checkpoint: Path, tokens: int, chunk_size: int
) -> None:
    """Token by token they pass one block of 128, whose entry the last ones attend."""
    logits = {}
    for name in DIALECTS:
        llm = LLM(checkpoint, dialect=name)
        assert llm.dialect.name == name
        logits[name] = llm.score(prompt(llm)[:tokens], chunk_size=chunk_size)
    assert logits["ocp"].isfinite().all()
    assert torch.equal(logits["ocp"], logits["fnuz"])


def test_native_numerics_round_and_exact_numerics_do_not(checkpoint: Path) -> None:
    """If native equalled exact, the dialect tests would say nothing about quantisation."""
    native, exact = (LLM(checkpoint, numerics=n) for n in ("native", "exact"))
    difference = (native.score(prompt(native)) - exact.score(prompt(exact))).abs()
    assert difference.max() > 1e-3


def test_weights_of_one_dialect_and_activations_of_the_other_are_refused(checkpoint: Path) -> None:
    ops = bind("torch")
    config, weights = load(checkpoint, numerics="native", dialect=OCP, device=CPU, ops=ops)
    with pytest.raises(DialectMismatch, match=r"fp8_linear\(weight=\): expected FNUZ"):
        step(config, replace(weights, dialect=FNUZ), ops, FNUZ)


def test_a_cache_of_the_other_dialect_changes_nothing(checkpoint: Path) -> None:
    """Each cache is decoded by its own tag, so even a mixed run gives the same logits."""
    ops = bind("torch")
    config, weights = load(checkpoint, numerics="native", dialect=OCP, device=CPU, ops=ops)
    assert torch.equal(step(config, weights, ops, OCP), step(config, weights, ops, FNUZ))


def step(config, weights, ops, cache_dialect) -> torch.Tensor:
    pool = allocate_pool(
        config,
        slots=2,
        pages=4,
        staging=TOKENS,
        dialect=cache_dialect,
        plain=False,
        device=CPU,
        revision=weights.revision,
    )
    ids = [i % config.vocab_size for i in range(TOKENS)]
    batch = BatchBuilder(config, pool, CPU).build([Chunk(ids, 0, 1, [1, 2, 3], logits="all")])
    with torch.inference_mode():
        return forward(config, weights, ops, pool, batch)
