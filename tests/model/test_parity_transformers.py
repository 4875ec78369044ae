"""The forward pass against transformers, the outside authority, in fp32 with nothing rounded."""

from __future__ import annotations

import pytest
import torch

from isobath import LLM
from isobath.bench.peer import transformers_model
from tests.support.checkpoints import dequantized, random_checkpoint

TOKENS = 720  # five entries of ratio 128, 180 of ratio 4
TOLERANCE = 1e-4
"""Two fp32 implementations that sum in different orders differ by 1-2e-5 on logits of +-6 in models
of this size (measured between two independent implementations); a rule broken in any single place
moves them by 5e-2 or more."""

LAYOUTS = {
    "all_kinds": dict(compress_ratios=[0, 128, 4, 128, 4, 0, 4], num_hash_layers=3, seed=0),
    "flash_order": dict(compress_ratios=[0, 0, 4, 128, 4], num_hash_layers=3, seed=1),
    "pro_order": dict(
        compress_ratios=[128, 128, 4, 128, 4], num_hash_layers=1, index_topk=64, seed=2
    ),
    "real_head": dict(
        compress_ratios=[0, 4, 128],
        num_hash_layers=1,
        head_dim=512,
        qk_rope_head_dim=64,
        index_head_dim=128,
        seed=3,
    ),
}


SMALL = (1, 2, 3, 5, 6, 7)
"""Sizes of chunks, of which a prompt has many."""


@pytest.fixture(scope="module", params=LAYOUTS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(folder, token ids, whole-prompt logits of isobath in exact numerics)."""
    options = dict(LAYOUTS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    ratios = options.pop("compress_ratios")
    random_checkpoint(folder, compress_ratios=ratios, num_hidden_layers=len(ratios), **options)
    generator = torch.Generator().manual_seed(options["seed"])
    llm = LLM(folder, numerics="exact", max_batched_tokens=TOKENS)
    ids = torch.randint(0, llm.config.vocab_size, (TOKENS,), generator=generator)
    return folder, ids, llm, llm.score(ids.tolist())


def test_logits_equal_those_of_transformers(model) -> None:
    folder, ids, _, logits = model
    peer = transformers_model(folder, dequantized(folder))
    with torch.inference_mode():
        expected = peer(input_ids=ids[None], use_cache=False).logits[0]
    assert expected.abs().max() > 1, "a model whose logits are all alike would prove nothing"
    assert (logits - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    "chunk_size", [*SMALL, 61, 63, 64, 125, 126, 127, 128, 129, 130, 131, 255, 257, 513]
)
def test_chunked_prefill_equals_the_whole_prompt(model, chunk_size: int) -> None:
    """Chunk size 1 is decode. Sizes cover every residue of a boundary mod 4, and both sides of a
    window of 128, which small ones pass once by day."""
    _, ids, llm, whole = model
    ids = ids[:150] if chunk_size in SMALL else ids
    chunked = llm.score(ids.tolist(), chunk_size=chunk_size)
    assert (chunked - whole[: len(ids)]).abs().max() <= TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize("chunk_size", SMALL)
def test_many_small_chunks_equal_the_whole_prompt(model, chunk_size: int) -> None:
    _, ids, llm, whole = model
    chunked = llm.score(ids.tolist(), chunk_size=chunk_size)
    assert (chunked - whole).abs().max() <= TOLERANCE


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 127, 128, 129, 255, 256, 257])
def test_a_prefix_scores_like_the_start_of_the_whole(model, length: int) -> None:
    _, ids, llm, whole = model
    assert (llm.score(ids[:length].tolist()) - whole[:length]).abs().max() <= TOLERANCE
