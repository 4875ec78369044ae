"""Captured decode steps on the GPU of this machine: the eager tokens, and faults that are found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from isobath.config import EngineConfig
from isobath.engine.graphs import DecodeGraphs, short_context
from isobath.engine.llm import LLM
from isobath.engine.runner import Runner
from isobath.engine.sampling import SamplingParams
from isobath.errors import CaptureUnsafe
from isobath.model.batch import Batch

pytestmark = pytest.mark.gpu
SEQS = 6
PROMPTS = [[3 + i, *range(40, 60 + 9 * i)] for i in range(SEQS)]


@pytest.fixture(scope="module")
def llm() -> LLM:
    options = EngineConfig(max_num_seqs=SEQS, num_pages=256, prefix_caching=False)
    return LLM(device="gpu", engine=options)


def tokens(llm: LLM, prompts: list[list[int]], max_tokens: int = 24) -> list[list[int]]:
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    return [c.token_ids for c in llm.generate(prompts, params)]


def eagerly(llm: LLM, prompts: list[list[int]], max_tokens: int = 24) -> list[list[int]]:
    runner = llm.engine.runner
    graphs, runner.graphs = runner.graphs, None
    try:
        return tokens(llm, prompts, max_tokens)
    finally:
        runner.graphs = graphs


def test_replayed_steps_give_the_tokens_of_eager_ones(llm: LLM) -> None:
    """Short prompts, and one beyond the context up to which nothing has to be chosen."""
    assert llm.engine.runner.graphs is not None
    short = short_context(llm.config)
    beyond = [[5 + i % 900 for i in range(short + 50)], *PROMPTS[:2]]
    for prompts in (PROMPTS, beyond):
        assert tokens(llm, prompts) == eagerly(llm, prompts)


def test_parallel_branches_give_the_tokens_of_one_chain(llm: LLM) -> None:
    """Replayed, and eager, where memory is reused from step to step on both streams."""
    options = EngineConfig(
        max_num_seqs=SEQS, num_pages=256, prefix_caching=False, parallel_branches=False
    )
    chain = tokens(LLM(device="gpu", engine=options), PROMPTS, max_tokens=48)
    assert tokens(llm, PROMPTS, max_tokens=48) == chain
    for _ in range(3):
        assert eagerly(llm, PROMPTS, max_tokens=48) == chain


def test_drawn_rows_are_sampled_from_the_logits_of_the_graph(llm: LLM) -> None:
    params = SamplingParams(max_tokens=12, temperature=0.8, seed=7, logprobs=2, ignore_eos=True)
    one = llm.generate(PROMPTS[:1], params)[0]
    assert llm.generate(PROMPTS, params)[0].token_ids == one.token_ids
    assert len(one.logprobs) == len(one.token_ids) == 12


def graphs_over(runner: Runner, forward: Callable[[Batch], torch.Tensor]) -> DecodeGraphs:
    device = runner.metadata.named_buffers()["block"].device
    return DecodeGraphs(runner.config, runner.metadata, runner.pool, forward, device)


READS = """
import torch
from isobath.config import EngineConfig
from isobath.engine.graphs import DecodeGraphs
from isobath.engine.llm import LLM

llm = LLM(device="gpu", engine=EngineConfig(max_num_seqs=2, num_pages=64, prefix_caching=False))
runner = llm.engine.runner

def reads(batch):
    return runner.forward(batch) + int(batch.positions.max())

with torch.inference_mode():
    args = (runner.config, runner.metadata, runner.pool, reads, torch.device("cuda"))
    DecodeGraphs(*args).prepare()
"""


def test_step_that_reads_a_value_on_the_host_is_refused() -> None:
    """In a process of its own: torch 2.11's allocator takes a capture that failed for one that is
    still under way, and empties no cache from then on."""
    done = subprocess.run([sys.executable, "-c", READS], capture_output=True, text=True)
    assert done.returncode == 1
    assert "CaptureUnsafe: capture the decode step for 2 sequences" in done.stderr, done.stderr


@torch.inference_mode()
def test_step_that_keeps_a_value_of_the_capture_is_refused(llm: LLM) -> None:
    runner, calls = llm.engine.runner, [0]

    def counts(batch: Batch) -> torch.Tensor:
        calls[0] += 1
        return runner.forward(batch) + calls[0]

    with pytest.raises(CaptureUnsafe, match="logits differs from an eager run"):
        graphs_over(runner, counts).prepare()
