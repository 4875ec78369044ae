"""The peer: transformers' DeepseekV4ForCausalLM with the weights of a published-format checkpoint.

Benchmarks run it beside isobath, and tests take it as the outside authority on the model's
semantics. Only names are translated here; nothing is shared with isobath's loader. transformers is
no dependency of isobath: it is imported when a model is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from isobath.errors import ConfigError
from isobath.model.shards import open_shards
from isobath.numerics import OCP, WEIGHT_BLOCK, Fp8Tensor, Mxfp4Tensor, dequantize, mxfp4

# Applied in order to everything after "layers.N."; later rules see what earlier ones produced.
RENAMES = (
    (r"^attn_norm\.", "input_layernorm."),
    (r"^ffn_norm\.", "post_attention_layernorm."),
    (r"^hc_(attn|ffn)_(fn|base|scale)$", r"\1_hc.\2"),
    (r"^attn\.attn_sink$", "self_attn.sinks"),
    (r"^attn\.indexer\.compressor\.", "self_attn.compressor.indexer."),
    (r"^attn\.indexer\.wq_b\.", "self_attn.compressor.indexer.q_b_proj."),
    (r"^attn\.indexer\.weights_proj\.", "self_attn.compressor.indexer.scorer.weights_proj."),
    (r"^attn\.", "self_attn."),
    (r"^ffn\.gate\.bias$", "mlp.gate.e_score_correction_bias"),
    (r"^ffn\.shared_experts\.w1\.", "mlp.shared_experts.gate_proj."),
    (r"^ffn\.shared_experts\.w2\.", "mlp.shared_experts.down_proj."),
    (r"^ffn\.shared_experts\.w3\.", "mlp.shared_experts.up_proj."),
    (r"^ffn\.", "mlp."),
    (r"compressor\.(indexer\.)?norm\.", r"compressor.\1kv_norm."),
    (r"compressor\.(indexer\.)?wkv\.", r"compressor.\1kv_proj."),
    (r"compressor\.(indexer\.)?wgate\.", r"compressor.\1gate_proj."),
    (r"compressor\.(indexer\.)?ape$", r"compressor.\1position_bias"),
    (r"self_attn\.wq_a\.", "self_attn.q_a_proj."),
    (r"self_attn\.q_norm\.", "self_attn.q_a_norm."),
    (r"self_attn\.wq_b\.", "self_attn.q_b_proj."),
    (r"self_attn\.wkv\.", "self_attn.kv_proj."),
    (r"self_attn\.wo_a\.", "self_attn.o_a_proj."),
    (r"self_attn\.wo_b\.", "self_attn.o_b_proj."),
)
TOP_LEVEL = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
    "hc_head_fn": "model.hc_head.hc_fn",
    "hc_head_base": "model.hc_head.hc_base",
    "hc_head_scale": "model.hc_head.hc_scale",
}
EXPERT = re.compile(r"^layers\.(\d+)\.ffn\.experts\.(\d+)\.(w[123])\.weight$")


def transformers_model(
    checkpoint: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32
) -> Any:
    """The model of `checkpoint`/config.json with `tensors` (published names, dequantised float32).

    Returns a DeepseekV4ForCausalLM in eval mode with weights in `dtype`. Raises ConfigError where
    transformers is not installed.
    """
    try:
        from transformers import DeepseekV4Config, DeepseekV4ForCausalLM
    except ImportError as error:
        raise ConfigError(
            "comparing with transformers", found=str(error), do="pip install 'isobath[test]'"
        ) from error
    raw = json.loads((checkpoint / "config.json").read_text())
    for key in ("quantization_config", "expert_dtype", "torch_dtype", "architectures"):
        raw.pop(key, None)
    config = DeepseekV4Config(**raw)
    config._attn_implementation = "eager"
    model = DeepseekV4ForCausalLM(config).eval()
    result = model.load_state_dict(_renamed(tensors), strict=False)
    assert not result.unexpected_keys, result.unexpected_keys[:5]
    missing = [k for k in result.missing_keys if "inv_freq" not in k]
    assert not missing, missing[:5]
    return model.to(dtype)


def dequantized_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint by its published name, quantised ones decoded to float32."""
    shards = open_shards(checkpoint)
    tensors = {}
    for name, spec in shards.specs().items():
        if name.endswith(".scale"):
            continue
        value = shards.read(name)
        if spec.dtype == "F8_E4M3":
            scale = shards.read(name.removesuffix("weight") + "scale")
            value = dequantize(Fp8Tensor(value, scale, OCP, WEIGHT_BLOCK))
        elif spec.dtype == "I8":
            scale = shards.read(name.removesuffix("weight") + "scale")
            value = mxfp4.dequantize(Mxfp4Tensor(value, scale))
        tensors[name] = value.float() if value.is_floating_point() else value.clone()
    return tensors


def _renamed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    experts: dict[tuple[int, int, str], torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("mtp."):
            continue
        if match := EXPERT.match(name):
            layer, expert, matrix = match.groups()
            experts[int(layer), int(expert), matrix] = tensor
        elif name in TOP_LEVEL:
            state[TOP_LEVEL[name]] = tensor
        else:
            _, layer, leaf = name.split(".", 2)
            for pattern, replacement in RENAMES:
                leaf = re.sub(pattern, replacement, leaf)
            state[f"model.layers.{layer}.{leaf}"] = tensor
    for layer in {key[0] for key in experts}:
        count = 1 + max(e for i, e, _ in experts if i == layer)
        stack = {
            w: torch.stack([experts[layer, e, w] for e in range(count)]) for w in ("w1", "w2", "w3")
        }
        prefix = f"model.layers.{layer}.mlp.experts."
        state[prefix + "gate_up_proj"] = torch.cat((stack["w1"], stack["w3"]), 1)
        state[prefix + "down_proj"] = stack["w2"]
    return state
