"""Scoring: logits of every position of one sequence, in a pool of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from isobath.cache.pool import PAGE_TOKENS, allocate_pool
from isobath.config import ModelConfig
from isobath.model.batch import BatchBuilder, Chunk
from isobath.model.v4 import forward
from isobath.model.weights import ModelWeights
from isobath.ops.table import OpTable


@torch.inference_mode()
def score(
    config: ModelConfig,
    weights: ModelWeights,
    ops: OpTable,
    device: torch.device,
    token_ids: Sequence[int],
    chunk_size: int,
) -> torch.Tensor:
    """Float32 logits [T, vocab] on the CPU, computed `chunk_size` tokens a step; row t is from
    tokens 0..t."""
    pages = range(1, -(-len(token_ids) // PAGE_TOKENS) + 1)
    pool = allocate_pool(
        config,
        slots=2,
        pages=len(pages) + 1,
        staging=chunk_size,
        dialect=weights.dialect,
        plain=weights.dtype == torch.float32,
        device=device,
        revision=weights.revision,
    )
    builder = BatchBuilder(config, pool, device)
    logits = []
    for start in range(0, len(token_ids), chunk_size):
        chunk = Chunk(token_ids[start : start + chunk_size], start, 1, pages, logits="all")
        logits.append(forward(config, weights, ops, pool, builder.build([chunk])).cpu())
    return torch.cat(logits)
