"""Attention of one layer: window rows, compressed entries and the sink in one softmax.

Ratio 0 sees the last `window` tokens. Ratio 4 (CSA) adds the best index_topk entries of four tokens
each, chosen by the indexer; ratio 128 (HCA) adds all entries of 128 tokens. Entries are written
before attending, so the token that completes a window already sees its entry.

The compressors, and the indexer after them, are a branch of their own beside the queries: they only
read x and the latent, and write other caches than the window's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from isobath.cache.pool import LayerCache
from isobath.cache.view import copy_rows
from isobath.config import ModelConfig
from isobath.model.aside import Aside
from isobath.model.batch import Batch, CompressPlan
from isobath.model.project import Projector
from isobath.model.weights import AttentionWeights
from isobath.numerics.fp8 import Fp8Tensor


def attention(
    x: torch.Tensor,
    quantized: Fp8Tensor | torch.Tensor,
    ratio: int,
    w: AttentionWeights,
    config: ModelConfig,
    project: Projector,
    cache: LayerCache,
    batch: Batch,
    aside: Aside,
) -> torch.Tensor:
    """x: [T, D], normed block input, and `quantized` as FP8 matrices take it. Returns [T, D].
    Writes this step's rows into `cache`."""
    ops, eps, dialect = project.ops, config.rms_norm_eps, project.dialect
    cos_sin = batch.cos_sin_compressed if ratio else batch.cos_sin_window
    plan = batch.plans.get(ratio)
    qa_kv, taken = take_in(x, quantized, w, project)
    slots = batch.window_slots
    fresh: Callable[[], torch.Tensor] | None = None
    if plan and taken is not None:
        fresh = aside(partial(compress, taken, w, config, project, cache, batch, plan))
    latent = ops.latent_insert(
        qa_kv, w.q_norm, w.kv_norm, cos_sin, cache.window, slots, dialect=dialect, eps=eps
    )
    chosen = None
    if plan and fresh:
        chosen = aside(partial(select, latent, fresh, w, config, project, cache, batch, plan))
    q = project(latent, w.wq_b).view(-1, config.num_attention_heads, config.head_dim)
    o = ops.attend(
        q,
        cache.window,
        cache.compressor.entries if cache.compressor else None,
        w.sink,
        cos_sin,
        window_rows=batch.window_rows,
        pages=plan.pages if plan else None,
        sequence=batch.sequence,
        visible=plan.visible if plan else None,
        selected=chosen() if chosen else None,
        scale=config.head_dim**-0.5,
        single=batch.single,
        eps=eps,
    )
    if not batch.single:
        copy_rows(cache.window, batch.commit_from, batch.commit_to)
    o = ops.grouped_project(o.view(len(o), config.o_groups, -1), w.wo_a, dialect=dialect)
    return project(o, w.wo_b)


def take_in(
    x: torch.Tensor,
    quantized: Fp8Tensor | torch.Tensor,
    w: AttentionWeights,
    project: Projector,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(the low rank of queries beside keys and values, [T, N]; what the compressors take in,
    float32 [T, C], if there are any: last come the indexer's head weights)."""
    if w.compress_in is None:
        return project(quantized, w.wqa_wkv), None
    if not isinstance(quantized, Fp8Tensor):
        return project(quantized, w.wqa_wkv), project.ops.linear(x, w.compress_in)
    both: tuple[torch.Tensor, torch.Tensor] = project.ops.attention_in(
        quantized, x, w.wqa_wkv, w.compress_in
    )
    return both


def compress(
    fresh: torch.Tensor,
    w: AttentionWeights,
    config: ModelConfig,
    project: Projector,
    cache: LayerCache,
    batch: Batch,
    plan: CompressPlan,
) -> torch.Tensor:
    """Store the entries that come due of what the compressors take in. Returns that."""
    assert w.compressor is not None and cache.compressor is not None
    first, own = w.compressor, cache.compressor
    step: dict[str, Any] = {
        "positions": batch.positions,
        "pool_rows": plan.pool_rows,
        "entry_rows": plan.entry_rows,
        "keep_tokens": plan.keep_tokens,
        "keep_rows": plan.keep_rows,
        "dtype": project.dtype,
        "eps": config.rms_norm_eps,
        "single": batch.single,
    }
    if w.indexer is None or cache.indexer is None:
        project.ops.compress_insert(
            fresh.view(len(fresh), 2, -1),
            first.ape,
            first.norm,
            plan.cos_sin,
            own.state,
            own.entries,
            **step,
        )
    else:
        second, keys = w.indexer.compressor, cache.indexer
        project.ops.compress_insert_pair(
            fresh,
            first.ape,
            first.norm,
            own.state,
            own.entries,
            second.ape,
            second.norm,
            keys.state,
            keys.entries,
            plan.cos_sin,
            **step,
        )
    return fresh


def select(
    latent: Fp8Tensor | torch.Tensor,
    fresh: Callable[[], torch.Tensor],
    w: AttentionWeights,
    config: ModelConfig,
    project: Projector,
    cache: LayerCache,
    batch: Batch,
    plan: CompressPlan,
) -> torch.Tensor | None:
    """The entries that are attended, int64 [T, k]. fresh: what compress() returns.

    None means that every visible entry is: always for ratio 128, and for ratio 4 while no token
    sees more than index_topk of them.
    """
    taken = fresh()
    if w.indexer is None or cache.indexer is None or plan.max_visible <= config.index_topk:
        return None
    ops, entries = project.ops, cache.indexer.entries
    q = project(latent, w.indexer.wq_b).view(-1, config.index_n_heads, config.index_head_dim)
    q, weights = ops.index_query(
        q,
        batch.cos_sin_compressed,
        taken[:, -config.index_n_heads :],
        layout=entries.layout,
        dialect=entries.dialect,
    )
    logits = ops.index_logits(
        q, weights, entries, pages=plan.pages, sequence=batch.sequence, visible=plan.visible
    )
    selected: torch.Tensor = ops.index_topk(logits, plan.visible, k=config.index_topk)
    return selected
