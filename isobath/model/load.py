"""From a checkpoint folder to ModelWeights: check, convert, fuse, prepare.

Everything that headers can show is checked before the first weight is read. Each matrix is handed
to its op's `prepare` as soon as it is complete and the original dropped, so beyond the finished
model only one matrix is held (for routed experts: one layer's). Draft tensors (`mtp.*`) are
reported once and left on disk. Reading and number formats are reader.py's business.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from isobath.config import ModelConfig
from isobath.errors import ConfigError
from isobath.model.binder import bind
from isobath.model.inventory import DRAFT_PREFIX
from isobath.model.reader import Progress, Reader
from isobath.model.revision import read_config
from isobath.model.shards import Shards, open_shards
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
from isobath.ops.contract import Backend
from isobath.ops.experts import ExpertWeights
from isobath.ops.table import OpTable

NUMERICS = ("native", "exact")
SMALL_BYTES = 1 << 16
_log = logging.getLogger(__name__)


def load(
    path: str | Path,
    *,
    numerics: str,
    dialect: Dialect,
    device: torch.device,
    ops: OpTable,
    progress: Progress | None = None,
) -> tuple[ModelConfig, ModelWeights]:
    """Load the checkpoint folder `path` onto `device`.

    numerics: "native" keeps FP8 (in `dialect`), MXFP4 and bf16; "exact" widens every matrix to
    float32. ops: whose `prepare` repacks each matrix. Raises a CheckpointError before anything is
    read, NumericsError for a weight without an exact counterpart in `dialect`.
    """
    if numerics not in NUMERICS:
        raise ConfigError("load(numerics=)", found=repr(numerics), do=f"choose one of {NUMERICS}")
    config = read_config(path)
    shards = open_shards(path)
    found = shards.specs()
    specs = bind(config, found, where=str(path), label=shards.label)
    draft = [s.nbytes for name, s in found.items() if name.startswith(DRAFT_PREFIX)]
    if draft:
        _log.warning(
            "%s: %d tensors of the %s draft (%.2f GB) are not used and stay on disk",
            path,
            len(draft),
            config.draft,
            sum(draft) / 1e9,
        )
    reader = Reader(
        shards,
        specs,
        dialect=dialect,
        device=device,
        exact=numerics == "exact",
        progress=progress,
    )
    return config, _Assembly(config, reader, ops, _revision(config, shards)).model()


def _revision(config: ModelConfig, shards: Shards) -> str:
    """Hash of the config, of every tensor's name, dtype and shape, and of the bytes of the small
    ones (norms, sinks, biases), which training changes all of. Large matrices are not read twice.
    """
    digest = hashlib.sha256(repr(config).encode())
    for name, spec in sorted(shards.specs().items()):
        digest.update(f"{name} {spec}\n".encode())
        if spec.nbytes <= SMALL_BYTES:
            digest.update(shards.read(name).reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Assembly:
    """Groups tensors into the records of weights.py, each matrix through its op's `prepare`."""

    config: ModelConfig
    read: Reader
    ops: OpTable
    revision: str

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
            attn_hyper=self._hyper(prefix + "hc_attn", self.ops.hyper_mix),
            attn_norm=self.read.vector(prefix + "attn_norm.weight"),
            attn=self._attention(prefix + "attn.", ratio),
            ffn_hyper=self._hyper(prefix + "hc_ffn", self.ops.hyper_mix),
            ffn_norm=self.read.vector(prefix + "ffn_norm.weight"),
            ffn=self._moe(prefix + "ffn.", hashed=i < self.config.num_hash_layers),
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
        return AttentionWeights(
            wqa_wkv=self._fp8([prefix + "wq_a", prefix + "wkv"]),
            q_norm=read.vector(prefix + "q_norm.weight"),
            wq_b=self._fp8([prefix + "wq_b"]),
            kv_norm=read.vector(prefix + "kv_norm.weight"),
            wo_a=self._grouped(prefix + "wo_a"),
            wo_b=self._fp8([prefix + "wo_b"]),
            sink=read.vector(prefix + "attn_sink"),
            compress_in=self._plain(projections) if projections else None,
            compressor=self._compressor(prefix + "compressor.") if ratio else None,
            indexer=self._indexer(prefix + "indexer.") if ratio == 4 else None,
        )

    def _grouped(self, name: str) -> Matrix:
        """wo_a as [G, R, K]: groups are consecutive rows, R a multiple of the quant block."""
        fused, groups = self.read.fp8([name]), self.config.o_groups
        if isinstance(fused, Fp8Tensor):
            data, scale = (t.unflatten(0, (groups, -1)) for t in (fused.data, fused.scale))
            fused = Fp8Tensor(data, scale, fused.dialect, fused.quant_block)
        else:
            fused = fused.unflatten(0, (groups, -1))
        return self.ops.grouped_linear.prepare(fused)

    def _indexer(self, prefix: str) -> IndexerWeights:
        return IndexerWeights(
            self._fp8([prefix + "wq_b"]), self._compressor(prefix + "compressor.")
        )

    def _compressor(self, prefix: str) -> CompressorWeights:
        return CompressorWeights(
            self.read.vector(prefix + "ape"), self.read.vector(prefix + "norm.weight")
        )

    def _moe(self, prefix: str, *, hashed: bool) -> MoeWeights:
        read, count = self.read, self.config.n_routed_experts
        shared = prefix + "shared_experts."
        return MoeWeights(
            gate=self._plain([prefix + "gate.weight"]),
            bias=None if hashed else read.vector(prefix + "gate.bias"),
            table=read.table(prefix + "gate.tid2eid", count) if hashed else None,
            experts=self._experts([f"{prefix}experts.{e}." for e in range(count)]),
            shared_w13=self._fp8([shared + "w1", shared + "w3"]),
            shared_w2=self._fp8([shared + "w2"]),
        )

    def _experts(self, prefixes: list[str]) -> ExpertWeights:
        w13 = self.read.experts([[p + "w1", p + "w3"] for p in prefixes])
        w2 = self.read.experts([[p + "w2"] for p in prefixes])
        prepared: ExpertWeights = self.ops.experts.prepare(ExpertWeights(w13, w2))
        return prepared

    def _fp8(self, names: list[str]) -> Matrix:
        """FP8 matrices for fp8_linear; widened ones in exact numerics are linear's."""
        op = self.ops.linear if self.read.exact else self.ops.fp8_linear
        return op.prepare(self.read.fp8(names))

    def _plain(self, names: list[str]) -> Matrix:
        return self.ops.linear.prepare(self.read.plain(names))
