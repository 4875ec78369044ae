"""The forward pass of DeepSeek-V4, top to bottom.

Plain functions: weights, ops, caches and batch come in as arguments and nothing is remembered here
but what lies in the caches. Prefill in any chunks and decode are this one function.

    ids ─ embed ─ S equal residual streams
    each layer, for block in (attention, experts):
        pre, post, comb = mix(streams);  x = norm(sum pre · stream)
        streams = post · block(x) + comb · streams
    (one op from a block's output to the next one's input: hyper_enter)
    head: streams -> one -> norm -> logits
"""

from __future__ import annotations

from functools import partial

import torch

from isobath.cache.pool import CachePool, tags_of
from isobath.config import ModelConfig
from isobath.model.aside import Aside, at_once
from isobath.model.attention import attention
from isobath.model.batch import Batch
from isobath.model.moe import moe
from isobath.model.project import projector
from isobath.model.weights import ModelWeights
from isobath.ops.experts import Summands
from isobath.ops.table import OpTable


def forward(
    config: ModelConfig,
    weights: ModelWeights,
    ops: OpTable,
    pool: CachePool,
    batch: Batch,
    *,
    aside: Aside = at_once,
) -> torch.Tensor:
    """One step. Returns float32 logits [L, vocab] for batch.logits_rows; advances the caches.
    aside: runs a layer's independent branches beside each other, or not.

    Raises LayoutMismatch, before any kernel runs, for a pool of another model or numerics.
    """
    plain = weights.dtype == torch.float32
    wanted = tags_of(config, weights.dialect, plain=plain, revision=weights.revision)
    pool.tags.expect(wanted, reader="forward")
    project = projector(ops, weights)
    streams = ops.embed(batch.token_ids, weights.embed, copies=config.hc_mult)
    enter = partial(
        ops.hyper_enter,
        dialect=project.dialect,
        iters=config.hc_sinkhorn_iters,
        eps=config.hc_eps,
        norm_eps=config.rms_norm_eps,
    )
    y: torch.Tensor | Summands | None = None
    post, comb = None, None
    for layer, cache in zip(weights.layers, pool.layers, strict=True):
        mix = layer.attn_hyper
        at = enter(y, streams, post, comb, mix.fn, mix.base, mix.scale, layer.attn_norm)
        y = attention(
            at.x, at.quantized, layer.ratio, layer.attn, config, project, cache, batch, aside
        )
        mix = layer.ffn_hyper
        at = enter(y, at.streams, at.post, at.comb, mix.fn, mix.base, mix.scale, layer.ffn_norm)
        y = moe(at.x, at.quantized, batch.token_ids, layer.ffn, config, ops)
        streams, post, comb = at.streams, at.post, at.comb
    streams = ops.hyper_expand(y, streams, post, comb)
    if batch.logits_rows is not None:
        streams = streams[batch.logits_rows]
    return head(streams, weights, config, ops)


def head(
    streams: torch.Tensor, weights: ModelWeights, config: ModelConfig, ops: OpTable
) -> torch.Tensor:
    """Streams [L, S, D] after the last layer -> float32 logits [L, vocab]."""
    x = ops.hyper_head(
        streams,
        weights.hyper_head.fn,
        weights.hyper_head.base,
        weights.hyper_head.scale,
        weights.norm,
        eps=config.hc_eps,
        norm_eps=config.rms_norm_eps,
    )
    logits: torch.Tensor = ops.linear(x, weights.head)
    return logits
