"""A token's logits are its own: the same bits in any chunk, any batch, by prefill or by decode.

Whole random models, every mechanism in them, under several thread counts. Equality is exact: no
tolerance is stated because none is needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from isobath import LLM, SamplingParams
from isobath.cache.pool import PAGE_TOKENS, allocate_pool
from isobath.config import ModelConfig
from isobath.engine.llm import BUNDLED
from isobath.engine.score import score
from isobath.model.batch import BatchBuilder, Chunk
from isobath.model.load import load
from isobath.model.v4 import forward
from isobath.model.weights import ModelWeights
from isobath.numerics import OCP
from isobath.ops.table import OpTable, bind
from tests.support.checkpoints import random_checkpoint

CPU, OPS = torch.device("cpu"), bind("torch")

FEW_SIZES = {"native": (1, 7, 61, 128, 129), "exact": (61, 129)}
CHUNK_SIZES = {1: (1, 2, 3, 5, 7, 61, 64, 127, 128, 129), 2: (7, 61, 129)}
"""By number of threads, at night. Two wait for each other at every call, and longest on a busy
machine: minutes for what takes one of them seconds."""
LENGTH = 300
"""Tokens scored: two HCA entries, and four times as many CSA entries as the indexer keeps."""
STARTS = ((0, 1), (5, 1), (200, 37), (127, 2), (290, 1), (64, 9), (0, 150))
"""Of each sequence in one mixed step: tokens already in the caches, tokens of the step."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("invariance")
    random_checkpoint(folder, seed=11)
    return folder


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.nightly)])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def prompt(seed: int, length: int, vocab_size: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, vocab_size, (length,), generator=generator).tolist()


@pytest.mark.parametrize("numerics", ["native", "exact"])
def test_logits_do_not_depend_on_how_a_prompt_is_cut(checkpoint: Path, numerics: str) -> None:
    assert_cuts_do_not_matter(LLM(checkpoint, numerics=numerics), FEW_SIZES[numerics])


@pytest.mark.nightly
@pytest.mark.parametrize("numerics", ["native", "exact"])
def test_logits_do_not_depend_on_how_a_prompt_is_cut_in_many_ways(
    checkpoint: Path, numerics: str, threads: int
) -> None:
    assert_cuts_do_not_matter(LLM(checkpoint, numerics=numerics), CHUNK_SIZES[threads])


@pytest.mark.nightly
def test_logits_do_not_depend_on_the_number_of_threads(checkpoint: Path) -> None:
    llm, before = LLM(checkpoint), torch.get_num_threads()
    ids = prompt(0, LENGTH, llm.config.vocab_size)
    whole = llm.score(ids)
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        assert torch.equal(llm.score(ids), whole)
    finally:
        torch.set_num_threads(before)


def assert_cuts_do_not_matter(llm: LLM, sizes: Iterable[int]) -> None:
    ids = prompt(0, LENGTH, llm.config.vocab_size)
    whole = llm.score(ids)
    assert whole.isfinite().all()
    for size in sizes:
        assert torch.equal(llm.score(ids, chunk_size=size), whole), size


@pytest.mark.parametrize("numerics", ["native", "exact"])
def test_logits_do_not_depend_on_the_other_sequences_of_a_step(
    checkpoint: Path, numerics: str, threads: int
) -> None:
    """One step of seven sequences, some in prefill and some in decode, against each alone."""
    parts = (*load(checkpoint, numerics=numerics, dialect=OCP, device=CPU, ops=OPS), OPS)
    vocab = parts[0].vocab_size
    prompts = [prompt(i, start + n, vocab) for i, (start, n) in enumerate(STARTS)]
    together = logits_of_step(*parts, prompts, [start for start, _ in STARTS])
    for ids, (start, _), got in zip(prompts, STARTS, together, strict=True):
        assert torch.equal(got, logits_of_step(*parts, [ids], [start])[0]), start
        assert torch.equal(got, score(*parts, CPU, ids, LENGTH)[start:]), start


@torch.inference_mode()
def logits_of_step(
    config: ModelConfig,
    weights: ModelWeights,
    ops: OpTable,
    prompts: list[list[int]],
    starts: list[int],
) -> list[torch.Tensor]:
    """Logits of prompt[start:] of each prompt, all in one step after one step a prompt's start."""
    pool = allocate_pool(
        config,
        slots=len(prompts) + 1,
        pages=1 + sum(-(-len(p) // PAGE_TOKENS) for p in prompts),
        staging=sum(len(p) for p in prompts),
        dialect=weights.dialect,
        plain=weights.dtype == torch.float32,
        revision=weights.revision,
        device=CPU,
    )
    builder = BatchBuilder(config, pool, CPU)
    chunks, page = [], 1
    for slot, (ids, start) in enumerate(zip(prompts, starts, strict=True), start=1):
        pages = range(page, page + -(-len(ids) // PAGE_TOKENS))
        page = pages.stop
        if start:
            begin = builder.build([Chunk(ids[:start], 0, slot, pages, logits="none")])
            forward(config, weights, ops, pool, begin)
        chunks.append(Chunk(ids[start:], start, slot, pages, logits="all"))
    logits = forward(config, weights, ops, pool, builder.build(chunks))
    return list(logits.split([len(c.token_ids) for c in chunks]))


def test_generated_tokens_do_not_depend_on_the_batch(checkpoint: Path, threads: int) -> None:
    shutil.copy(BUNDLED / "tokenizer.json", checkpoint)
    llm = LLM(checkpoint)
    params = SamplingParams(max_tokens=12, ignore_eos=True, temperature=1.0, seed=5)
    prompts = [prompt(i, n, llm.config.vocab_size) for i, n in enumerate((1, 3, 17, 130, 255))]
    together = [c.token_ids for c in llm.generate(prompts, params)]
    assert together == [llm.generate([p], params)[0].token_ids for p in prompts]
