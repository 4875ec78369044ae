"""Every tensor of a published DeepSeek-V4 checkpoint, generated from the ModelConfig alone.

This list is the contract between a checkpoint and the loader: a file with one tensor more, one
less or another shape is refused. It also answers how many bytes a model is without reading any.
It assumes MXFP4 routed experts and FP8 weights in blocks of 128 x 128. DSpark draft stages are
recognised by their prefix (`mtp.`) and not enumerated: their shapes are not in the config.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from isobath.config import ModelConfig
from isobath.numerics.fp8 import WEIGHT_BLOCK, scale_shape
from isobath.numerics.mxfp4 import GROUP

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Bytes of one element of each dtype of the safetensors format that a file may name."""

DRAFT_PREFIX = "mtp."


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """dtype: its name in the safetensors format. shape: as stored (FP4 codes two a byte, "I8")."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{list(self.shape)} {self.dtype}"


Named = Iterator[tuple[str, TensorSpec]]


def tensors(config: ModelConfig) -> dict[str, TensorSpec]:
    """Name -> dtype and shape of every tensor, in the order of the forward pass.

    Includes the layers of an MTP draft, which follow the main layers; excludes DSpark's.
    """
    found = dict(_main(config))
    if config.draft == "mtp":
        found.update(_mtp(config))
    return found


def tensor_class(name: str) -> str:
    """What part of the model the tensor `name` belongs to, for reports."""
    if name.startswith(DRAFT_PREFIX):
        return "draft"
    for needle, part in (
        (".experts.", "routed expert scales" if name.endswith(".scale") else "routed experts"),
        (".shared_experts.", "shared experts"),
        (".indexer.", "indexers"),
        (".compressor.", "compressors"),
        (".tid2eid", "hash routing tables"),
        (".gate.", "gates"),
        ("hc_", "hyper-connections"),
        (".attn.", "attention"),
    ):
        if needle in name:
            return part
    return "embedding, head, norms"


def parameters(specs: dict[str, TensorSpec]) -> int:
    """Number of trained values: two a byte of FP4 codes; scales and routing tables do not count."""
    return sum(
        math.prod(s.shape) * (2 if s.dtype == "I8" else 1)
        for name, s in specs.items()
        if not name.endswith(".scale") and s.dtype != "I64"
    )


def _main(c: ModelConfig) -> Named:
    yield "embed.weight", TensorSpec("BF16", (c.vocab_size, c.hidden_size))
    for i, ratio in enumerate(c.compress_ratios):
        yield from _layer(c, f"layers.{i}.", ratio, hashed=i < c.num_hash_layers)
    yield from _tail(c, "")
    yield "head.weight", TensorSpec("BF16", (c.vocab_size, c.hidden_size))


def _mtp(c: ModelConfig) -> Named:
    for i, ratio in enumerate(c.draft_ratios):
        prefix = f"{DRAFT_PREFIX}{i}."
        yield from _layer(c, prefix, ratio, hashed=False)
        yield from _tail(c, prefix)
        for name in ("e_proj", "h_proj"):
            yield from _fp8(prefix + name, c.hidden_size, c.hidden_size)
        for name in ("enorm", "hnorm"):
            yield _norm(prefix + name, c.hidden_size)


def _tail(c: ModelConfig, prefix: str) -> Named:
    """The mixer and the norm between the last layer and the LM head."""
    yield prefix + "hc_head_fn", TensorSpec("F32", (c.hc_mult, c.hc_mult * c.hidden_size))
    yield prefix + "hc_head_base", TensorSpec("F32", (c.hc_mult,))
    yield prefix + "hc_head_scale", TensorSpec("F32", (1,))
    yield _norm(prefix + "norm", c.hidden_size)


def _layer(c: ModelConfig, prefix: str, ratio: int, *, hashed: bool) -> Named:
    rows = (2 + c.hc_mult) * c.hc_mult
    for block in ("attn", "ffn"):
        yield f"{prefix}hc_{block}_fn", TensorSpec("F32", (rows, c.hc_mult * c.hidden_size))
        yield f"{prefix}hc_{block}_base", TensorSpec("F32", (rows,))
        yield f"{prefix}hc_{block}_scale", TensorSpec("F32", (3,))
        yield _norm(f"{prefix}{block}_norm", c.hidden_size)
    yield from _attention(c, prefix + "attn.", ratio)
    yield from _moe(c, prefix + "ffn.", hashed=hashed)


def _attention(c: ModelConfig, prefix: str, ratio: int) -> Named:
    heads = c.num_attention_heads * c.head_dim
    yield prefix + "attn_sink", TensorSpec("F32", (c.num_attention_heads,))
    yield _norm(prefix + "q_norm", c.q_lora_rank)
    yield _norm(prefix + "kv_norm", c.head_dim)
    yield from _fp8(prefix + "wq_a", c.q_lora_rank, c.hidden_size)
    yield from _fp8(prefix + "wkv", c.head_dim, c.hidden_size)
    yield from _fp8(prefix + "wq_b", heads, c.q_lora_rank)
    yield from _fp8(prefix + "wo_a", c.o_groups * c.o_lora_rank, heads // c.o_groups)
    yield from _fp8(prefix + "wo_b", c.hidden_size, c.o_groups * c.o_lora_rank)
    if ratio:
        yield from _compressor(prefix + "compressor.", c.hidden_size, c.head_dim, ratio)
    if ratio == 4:
        indexer = prefix + "indexer."
        yield from _fp8(indexer + "wq_b", c.index_n_heads * c.index_head_dim, c.q_lora_rank)
        proj = TensorSpec("BF16", (c.index_n_heads, c.hidden_size))
        yield indexer + "weights_proj.weight", proj
        yield from _compressor(indexer + "compressor.", c.hidden_size, c.index_head_dim, ratio)


def _compressor(prefix: str, hidden: int, dim: int, ratio: int) -> Named:
    channels = 2 * dim if ratio == 4 else dim  # ratio 4 pools overlapping windows
    yield prefix + "ape", TensorSpec("F32", (ratio, channels))
    yield prefix + "wkv.weight", TensorSpec("BF16", (channels, hidden))
    yield prefix + "wgate.weight", TensorSpec("BF16", (channels, hidden))
    yield _norm(prefix + "norm", dim)


def _moe(c: ModelConfig, prefix: str, *, hashed: bool) -> Named:
    hidden, inner = c.hidden_size, c.moe_intermediate_size
    yield prefix + "gate.weight", TensorSpec("BF16", (c.n_routed_experts, hidden))
    if hashed:
        table = (c.vocab_size, c.num_experts_per_tok)
        yield prefix + "gate.tid2eid", TensorSpec("I64", table)
    else:
        yield prefix + "gate.bias", TensorSpec("F32", (c.n_routed_experts,))
    shapes = {"w1": (inner, hidden), "w3": (inner, hidden), "w2": (hidden, inner)}
    for expert in range(c.n_routed_experts):
        for matrix, (n, k) in shapes.items():
            yield from _mxfp4(f"{prefix}experts.{expert}.{matrix}", n, k)
    for matrix, (n, k) in shapes.items():
        yield from _fp8(f"{prefix}shared_experts.{matrix}", n, k)


def _norm(name: str, width: int) -> tuple[str, TensorSpec]:
    return name + ".weight", TensorSpec("BF16", (width,))


def _fp8(name: str, n: int, k: int) -> Named:
    yield name + ".weight", TensorSpec("F8_E4M3", (n, k))
    yield name + ".scale", TensorSpec("F8_E8M0", scale_shape((n, k), WEIGHT_BLOCK))


def _mxfp4(name: str, n: int, k: int) -> Named:
    yield name + ".weight", TensorSpec("I8", (n, k // 2))
    yield name + ".scale", TensorSpec("F8_E8M0", (n, k // GROUP))
