"""Loaded weights cut apart again, under their published names: the inverse of the loader's fusing.

Assumes weights that no backend repacked (the reference backends keep them as they are).
"""

from __future__ import annotations

from typing import Any

import torch

from isobath.config import ModelConfig
from isobath.model.weights import LayerWeights, ModelWeights
from isobath.model.writer import Storable
from isobath.numerics import WEIGHT_BLOCK, Fp8Tensor, Mxfp4Tensor, mxfp4
from isobath.numerics.fp8 import dequantize


def unfused(config: ModelConfig, w: ModelWeights) -> dict[str, Storable]:
    """Published names of everything in `w`, fused matrices cut apart again."""
    out: dict[str, Storable] = {"embed.weight": w.embed, "head.weight": w.head}
    out["norm.weight"] = w.norm
    hyper = {"hc_head": w.hyper_head}
    for i, layer in enumerate(w.layers):
        out |= {f"layers.{i}.{n}": t for n, t in layer_tensors(config, layer).items()}
        hyper |= {f"layers.{i}.hc_attn": layer.attn_hyper, f"layers.{i}.hc_ffn": layer.ffn_hyper}
    for name, mixer in hyper.items():
        for part in ("fn", "base", "scale"):
            out[f"{name}_{part}"] = getattr(mixer, part)
    return out


def layer_tensors(c: ModelConfig, layer: LayerWeights) -> dict[str, Storable]:
    attn, ffn, inner = layer.attn, layer.ffn, c.moe_intermediate_size
    out = cut(attn.wqa_wkv, {"attn.wq_a": c.q_lora_rank, "attn.wkv": c.head_dim})
    out |= {f"attn.{n}.weight": getattr(attn, n) for n in ("wq_b", "wo_b", "q_norm")}
    out["attn.wo_a.weight"] = ungrouped(attn.wo_a)
    out |= {"attn.kv_norm.weight": attn.kv_norm, "attn.attn_sink": attn.sink}
    out |= {"attn_norm.weight": layer.attn_norm, "ffn_norm.weight": layer.ffn_norm}
    channels = c.head_dim * (2 if layer.ratio == 4 else 1)
    rows = {"attn.compressor.wkv": channels, "attn.compressor.wgate": channels}
    compressors = {"attn.compressor": attn.compressor}
    if attn.indexer is not None:
        rows["attn.indexer.compressor.wkv"] = rows["attn.indexer.compressor.wgate"] = (
            2 * c.index_head_dim
        )
        rows["attn.indexer.weights_proj"] = c.index_n_heads
        out["attn.indexer.wq_b.weight"] = attn.indexer.wq_b
        compressors["attn.indexer.compressor"] = attn.indexer.compressor
    if layer.ratio:
        out |= cut(attn.compress_in, rows)
        for name, part in compressors.items():
            out |= {f"{name}.ape": part.ape, f"{name}.norm.weight": part.norm}
    out["ffn.gate.weight"] = ffn.gate
    if ffn.bias is not None:
        out["ffn.gate.bias"] = ffn.bias
    if ffn.table is not None:
        out["ffn.gate.tid2eid"] = ffn.table
    out |= cut(
        ffn.shared_w13, dict.fromkeys(("ffn.shared_experts.w1", "ffn.shared_experts.w3"), inner)
    )
    out["ffn.shared_experts.w2.weight"] = ffn.shared_w2
    for e in range(c.n_routed_experts):
        p = f"ffn.experts.{e}."
        out |= cut(part_of(ffn.experts.w13, e), {p + "w1": inner, p + "w3": inner})
        out[p + "w2.weight"] = part_of(ffn.experts.w2, e)
    return out


def part_of(t: Any, e: int) -> Any:
    return Mxfp4Tensor(t.packed[e], t.scale[e]) if isinstance(t, Mxfp4Tensor) else t[e]


def cut(t: Any, rows: dict[str, int]) -> dict[str, Storable]:
    """Consecutive rows of a fused matrix under the names of its parts."""
    out: dict[str, Storable] = {}
    start = 0
    for name, n in rows.items():
        span = slice(start, start + n)
        if isinstance(t, Fp8Tensor):
            blocks = slice(start // 128, -(-(start + n) // 128))
            out[f"{name}.weight"] = Fp8Tensor(
                t.data[span], t.scale[blocks], t.dialect, WEIGHT_BLOCK
            )
        elif isinstance(t, Mxfp4Tensor):
            out[f"{name}.weight"] = Mxfp4Tensor(t.packed[span], t.scale[span])
        else:
            out[f"{name}.weight"] = t[span]
        start += n
    assert start == len(
        t.data if isinstance(t, Fp8Tensor) else t.packed if isinstance(t, Mxfp4Tensor) else t
    )
    return out


def decoded(t: Storable) -> torch.Tensor:
    if isinstance(t, Fp8Tensor):
        return dequantize(t)
    return mxfp4.dequantize(t) if isinstance(t, Mxfp4Tensor) else t


def ungrouped(weight: Fp8Tensor | torch.Tensor) -> Fp8Tensor | torch.Tensor:
    """[G, R, K] -> [G * R, K]."""
    if not isinstance(weight, Fp8Tensor):
        return weight.flatten(0, 1)
    data, scale = weight.data.flatten(0, 1), weight.scale.flatten(0, 1)
    return Fp8Tensor(data, scale, weight.dialect, weight.quant_block)
