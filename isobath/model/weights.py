"""The weights of a DeepSeek-V4 model as frozen records, grouped the way the forward pass uses them.

Matrices that share an input are stored as one: rows of wq_a then wkv; of w1 (gate) then w3 (up);
of the compressors' wkv and wgate and the indexer's weights_proj. A matrix is an Fp8Tensor or
Mxfp4Tensor in native numerics, float32 in exact numerics, or whatever the `prepare` of the backend
that reads it returned. Loading is load.py's business; nothing here touches a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.experts import ExpertWeights

Matrix = Any
"""Fp8Tensor, a plain tensor, or a backend's own form of one of them."""


@dataclass(frozen=True, slots=True)
class HyperWeights:
    """A block's mixer, float32. fn: [(2 + S) * S, S * D]. base: [(2 + S) * S]. scale: [3]. The
    head's mixer has fn [S, S * D], base [S], scale [1]."""

    fn: Matrix
    base: torch.Tensor
    scale: torch.Tensor


@dataclass(frozen=True, slots=True)
class CompressorWeights:
    """What follows a compressor's projections. ape: float32 [ratio, C]. norm: [d]."""

    ape: torch.Tensor
    norm: torch.Tensor


@dataclass(frozen=True, slots=True)
class IndexerWeights:
    """wq_b: [Hi * di, q_lora], shares its input with the main wq_b. compressor: of width di."""

    wq_b: Matrix
    compressor: CompressorWeights


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """wqa_wkv: [q_lora + d, D]. wq_b: [H * d, q_lora]. wo_a: [G, R, H * d / G]. wo_b: [D, G * R].
    q_norm: [q_lora]. kv_norm: [d]. sink: float32 [H].

    compress_in: None for ratio 0, else unquantised [rows, D] with the rows of compressor.wkv,
    compressor.wgate and, for ratio 4, indexer.compressor.wkv, .wgate and indexer.weights_proj.
    """

    wqa_wkv: Matrix
    q_norm: torch.Tensor
    wq_b: Matrix
    kv_norm: torch.Tensor
    wo_a: Matrix
    wo_b: Matrix
    sink: torch.Tensor
    compress_in: Matrix | None
    compressor: CompressorWeights | None
    indexer: IndexerWeights | None


@dataclass(frozen=True, slots=True)
class MoeWeights:
    """gate: [E, D]. Learned routing has bias float32 [E], hash routing table int64 [vocab, k].
    shared_w13: [2 * I, D], shared_w2: [D, I]."""

    gate: Matrix
    bias: torch.Tensor | None
    table: torch.Tensor | None
    experts: ExpertWeights
    shared_w13: Matrix
    shared_w2: Matrix


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One transformer layer of compression ratio 0, 4 or 128."""

    ratio: int
    attn_hyper: HyperWeights
    attn_norm: torch.Tensor
    attn: AttentionWeights
    ffn_hyper: HyperWeights
    ffn_norm: torch.Tensor
    ffn: MoeWeights


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """embed, head: [vocab, D]. dialect: of every FP8 byte in here. dtype: of activations between
    ops, bfloat16 in native numerics and float32 in exact. revision: tells one checkpoint from
    another; part of every cache's tag."""

    embed: torch.Tensor
    layers: tuple[LayerWeights, ...]
    hyper_head: HyperWeights
    norm: torch.Tensor
    head: Matrix
    dialect: Dialect
    dtype: torch.dtype
    revision: str
