"""From named tensors to ModelWeights: which belong together, and which op's `prepare` gets them.

Each matrix is handed to its op's `prepare` as soon as it is complete and the original dropped, so
beyond the finished model only one matrix is held (for routed experts: one layer's). Where tensors
come from, files or a random generator, is the business of the Source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from isobath.config import ModelConfig
from isobath.model.weights import (
    AttentionWeights,
    CompressorWeights,
    HyperWeights,
    IndexerWeights,
    LayerWeights,
    Matrix,
    ModelWeights,
    MoeWeights,
)
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.ops.contract import Backend
from isobath.ops.experts import ExpertWeights
from isobath.ops.table import OpTable


class Source(Protocol):
    """Where tensors come from, by their published names; see reader.py for each method."""

    exact: bool

    @property
    def dialect(self) -> Dialect: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def vector(self, name: str) -> torch.Tensor: ...

    def plain(self, names: Sequence[str]) -> torch.Tensor: ...

    def table(self, name: str, num_experts: int) -> torch.Tensor: ...

    def fp8(self, names: Sequence[str]) -> Fp8Tensor | torch.Tensor: ...

    def experts(self, groups: Sequence[Sequence[str]]) -> Mxfp4Tensor | torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Assembly:
    """Groups tensors into the records of weights.py, each matrix through its op's `prepare`.

    expert_sets: 0, or the number of sets of routed experts that layers share in turn: for timing a
    model that is larger than the memory, whose outputs then mean nothing.
    """

    config: ModelConfig
    read: Source
    ops: OpTable
    revision: str
    expert_sets: int = 0
    shared: dict[int, ExpertWeights] = field(default_factory=dict)

    def model(self) -> ModelWeights:
        read = self.read
        return ModelWeights(
            embed=read.plain(["embed.weight"]),
            layers=tuple(self._layer(i) for i in range(self.config.num_hidden_layers)),
            hyper_head=self._hyper("hc_head", self.ops.hyper_head),
            norm=read.vector("norm.weight"),
            head=self._plain(["head.weight"]),
            dialect=read.dialect,
            dtype=read.dtype,
            revision=self.revision,
        )

    def _layer(self, i: int) -> LayerWeights:
        prefix, ratio = f"layers.{i}.", self.config.compress_ratios[i]
        return LayerWeights(
            ratio=ratio,
            attn_hyper=self._hyper(prefix + "hc_attn", self.ops.hyper_enter),
            attn_norm=self.read.vector(prefix + "attn_norm.weight"),
            attn=self._attention(prefix + "attn.", ratio),
            ffn_hyper=self._hyper(prefix + "hc_ffn", self.ops.hyper_enter),
            ffn_norm=self.read.vector(prefix + "ffn_norm.weight"),
            ffn=self._moe(i, hashed=i < self.config.num_hash_layers),
        )

    def _hyper(self, prefix: str, op: Backend) -> HyperWeights:
        fn, base, scale = (self.read.vector(f"{prefix}_{n}") for n in ("fn", "base", "scale"))
        return HyperWeights(op.prepare(fn), base, scale)

    def _attention(self, prefix: str, ratio: int) -> AttentionWeights:
        read = self.read
        projections = [f"{prefix}compressor.{n}.weight" for n in ("wkv", "wgate")] if ratio else []
        if ratio == 4:
            indexer = prefix + "indexer."
            projections += [f"{indexer}compressor.{n}.weight" for n in ("wkv", "wgate")]
            projections += [indexer + "weights_proj.weight"]
        low = [prefix + "wq_a", prefix + "wkv"]
        together = self.ops.attention_in.prepare if ratio and not read.exact else None
        return AttentionWeights(
            wqa_wkv=together(read.fp8(low)) if together else self._fp8(low),
            q_norm=read.vector(prefix + "q_norm.weight"),
            wq_b=self._fp8([prefix + "wq_b"]),
            kv_norm=read.vector(prefix + "kv_norm.weight"),
            wo_a=self._grouped(prefix + "wo_a"),
            wo_b=self._fp8([prefix + "wo_b"]),
            sink=read.vector(prefix + "attn_sink"),
            compress_in=self._compress_in(projections) if projections else None,
            compressor=self._compressor(prefix + "compressor.") if ratio else None,
            indexer=self._indexer(prefix + "indexer.") if ratio == 4 else None,
        )

    def _compress_in(self, names: list[str]) -> Matrix:
        """Multiplied along with wqa_wkv, but in exact numerics."""
        op = self.ops.linear if self.read.exact else self.ops.attention_in
        return op.prepare(self.read.plain(names))

    def _grouped(self, name: str) -> Matrix:
        """wo_a as [G, R, K]: groups are consecutive rows, R a multiple of the quant block."""
        fused, groups = self.read.fp8([name]), self.config.o_groups
        if isinstance(fused, Fp8Tensor):
            data, scale = (t.unflatten(0, (groups, -1)) for t in (fused.data, fused.scale))
            fused = Fp8Tensor(data, scale, fused.dialect, fused.quant_block)
        else:
            fused = fused.unflatten(0, (groups, -1))
        return self.ops.grouped_project.prepare(fused)

    def _indexer(self, prefix: str) -> IndexerWeights:
        return IndexerWeights(
            self._fp8([prefix + "wq_b"]), self._compressor(prefix + "compressor.")
        )

    def _compressor(self, prefix: str) -> CompressorWeights:
        return CompressorWeights(
            self.read.vector(prefix + "ape"), self.read.vector(prefix + "norm.weight")
        )

    def _moe(self, layer: int, *, hashed: bool) -> MoeWeights:
        read, count, prefix = self.read, self.config.n_routed_experts, f"layers.{layer}.ffn."
        shared = prefix + "shared_experts."
        return MoeWeights(
            gate=self.ops.moe.prepare(read.plain([prefix + "gate.weight"])),
            bias=None if hashed else read.vector(prefix + "gate.bias"),
            table=read.table(prefix + "gate.tid2eid", count) if hashed else None,
            experts=self._experts(layer, [f"{prefix}experts.{e}." for e in range(count)]),
            shared_w13=self.ops.moe.prepare(read.fp8([shared + "w1", shared + "w3"])),
            shared_w2=self.ops.moe.prepare(read.fp8([shared + "w2"])),
        )

    def _experts(self, layer: int, prefixes: list[str]) -> ExpertWeights:
        if self.expert_sets and layer >= self.expert_sets:
            return self.shared[layer % self.expert_sets]
        w13 = self.read.experts([[p + "w1", p + "w3"] for p in prefixes])
        w2 = self.read.experts([[p + "w2"] for p in prefixes])
        prepared: ExpertWeights = self.ops.moe.prepare(ExpertWeights(w13, w2))
        if self.expert_sets:
            self.shared[layer] = prepared
        return prepared

    def _fp8(self, names: list[str]) -> Matrix:
        """FP8 matrices for fp8_linear; widened ones in exact numerics are linear's."""
        op = self.ops.linear if self.read.exact else self.ops.fp8_linear
        return op.prepare(self.read.fp8(names))

    def _plain(self, names: list[str]) -> Matrix:
        return self.ops.linear.prepare(self.read.plain(names))
