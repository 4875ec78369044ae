"""Small random checkpoints in the published form, and a decoder of them that shares no code with
the loader (safetensors, numpy and ml_dtypes only), so that it can judge the loader.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from safetensors import deserialize

from isobath.model.inventory import TensorSpec, tensors
from isobath.model.revision import parse_config
from isobath.model.writer import Storable, write_checkpoint
from isobath.numerics import mxfp4
from isobath.numerics.dialect import OCP
from isobath.numerics.fp8 import WEIGHT_BLOCK, quantize

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "compress_ratios": [0, 0, 4, 128, 4],
    "compress_rope_theta": 160000,
    "expert_dtype": "fp4",
    "hc_eps": 1e-06,
    "hc_mult": 4,
    "hc_sinkhorn_iters": 20,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 128,
    "index_head_dim": 32,
    "index_n_heads": 24,
    "index_topk": 16,
    "initializer_range": 0.02,
    "max_position_embeddings": 4096,
    "moe_intermediate_size": 128,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts_per_tok": 3,
    "num_key_value_heads": 1,
    "num_nextn_predict_layers": 0,
    "o_groups": 2,
    "o_lora_rank": 128,
    "q_lora_rank": 128,
    "qk_rope_head_dim": 16,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "scale_fmt": "ue8m0",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 4,
        "original_max_position_embeddings": 256,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 1.5,
    "scoring_func": "sqrtsoftplus",
    "sliding_window": 128,
    "swiglu_limit": 0.6,
    "tie_word_embeddings": False,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.1",
    "use_cache": True,
    "vocab_size": 151,
}
"""The published fields at test size; the clamp and the top-k bind, YaRN bends every rotation."""


def small_config(**overrides: Any) -> dict[str, Any]:
    """CONFIG with `overrides`; num_hidden_layers follows from compress_ratios, and
    num_hash_layers is at most that, unless given."""
    config = CONFIG | overrides
    layers = len(config["compress_ratios"]) - config["num_nextn_predict_layers"]
    config = {"num_hidden_layers": layers, "num_hash_layers": min(3, layers)} | config
    return json.loads(json.dumps(config))


def random_tensors(config: dict[str, Any], seed: int) -> dict[str, Storable]:
    """Every tensor that `config` asks for, quantised as published, with values that all matter."""
    generator = torch.Generator().manual_seed(seed)
    parsed = parse_config(config, where="random checkpoint")
    out: dict[str, Storable] = {}
    for name, spec in tensors(parsed).items():
        if not name.endswith(".scale"):
            out[name] = _values(name, spec, parsed.n_routed_experts, generator)
    return out


def random_checkpoint(
    path: str | Path, seed: int = 0, *, shard_bytes: int | None = None, **overrides: Any
) -> dict[str, Any]:
    """Write a random small checkpoint into the folder `path`; returns its config.

    overrides: config fields, for instance compress_ratios=[0, 4] or head_dim=512.
    """
    config = small_config(**overrides)
    write_checkpoint(path, config, random_tensors(config, seed), shard_bytes=shard_bytes)
    return config


def dequantized(path: str | Path) -> dict[str, torch.Tensor]:
    """Every weight of the checkpoint as float32 (routing tables int64), scales multiplied in."""
    raw: dict[str, tuple[str, np.ndarray]] = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        raw |= _read(file)
    out = {}
    for name, (dtype, array) in raw.items():
        if name.endswith(".scale"):
            continue
        if dtype == "I64":
            out[name] = torch.from_numpy(array.copy())
            continue
        values = array.astype(np.float32)
        if dtype == "I8":
            codes = np.stack([array & 15, array >> 4], -1).reshape(len(array), -1)
            values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
        if dtype in ("I8", "F8_E4M3"):
            scale = raw[name.removesuffix("weight") + "scale"][1].astype(np.float32)
            rows, cols = (1, 32) if dtype == "I8" else (128, 128)
            wide = scale.repeat(rows, 0).repeat(cols, 1)
            values = values * wide[: values.shape[0], : values.shape[1]]
        out[name] = torch.from_numpy(values)
    return out


_NUMPY = {
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "I64": np.int64,
    "I8": np.uint8,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def _read(file: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Name -> (stored dtype, array) of one safetensors file."""
    return {
        name: (
            info["dtype"],
            np.frombuffer(bytes(info["data"]), _NUMPY[info["dtype"]]).reshape(info["shape"]),
        )
        for name, info in deserialize(file.read_bytes())
    }


def _values(name: str, spec: TensorSpec, num_experts: int, generator: torch.Generator) -> Storable:
    shape = spec.shape
    if spec.dtype == "I64":
        order = torch.rand(shape[0], num_experts, generator=generator).argsort(-1)
        return order[:, : shape[1]].contiguous()
    if spec.dtype == "I8":
        shape = (shape[0], shape[1] * 2)
    noise = torch.randn(shape, generator=generator)
    if spec.dtype == "F8_E4M3":
        return quantize(noise * 1.3 * shape[1] ** -0.5, OCP, WEIGHT_BLOCK)
    if spec.dtype == "I8":
        return mxfp4.quantize(noise * 1.3 * shape[1] ** -0.5)
    values = _shaped(name, noise)
    return values.to(torch.bfloat16) if spec.dtype == "BF16" else values


def _shaped(name: str, noise: torch.Tensor) -> torch.Tensor:
    """Unquantised tensors: of a size at which getting them wrong changes the logits."""
    if name.endswith("norm.weight"):
        return 1 + 0.3 * noise
    if name.endswith("attn_sink"):
        return 1.5 * noise
    if name.endswith("gate.bias"):
        return 8 + 0.3 * noise
    if name.endswith("_fn"):
        return 0.15 * noise
    if name.endswith("_scale"):
        return 0.7 + 0.3 * noise.abs()
    if name.endswith(("_base", ".ape", "embed.weight")):
        return noise
    return noise * 1.3 * noise.shape[-1] ** -0.5
