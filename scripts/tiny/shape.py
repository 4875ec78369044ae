"""isobath-tiny's configuration in the published form, and the transformers model built from it.

The shape keeps every mechanism of DeepSeek-V4-Flash (two sliding-window layers, two CSA, two HCA,
hash and learned routing, hyper-connections, FP8 and MXFP4 weights) at widths the formats allow: FP8
dimensions divide by 128, MXFP4 K by 32. The initial values are chosen so that the network starts
near a plain pre-norm residual net; `init_weights` says how.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "expert_dtype": "fp4",
    "hc_eps": 1e-06,
    "hc_mult": 4,
    "hc_sinkhorn_iters": 20,
    "head_dim": 512,
    "hidden_act": "silu",
    "hidden_size": 256,
    "index_head_dim": 128,
    "index_n_heads": 16,
    "index_topk": 64,
    "initializer_range": 0.02,
    "max_position_embeddings": 8192,
    "model_type": "deepseek_v4",
    "moe_intermediate_size": 128,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 6,
    "num_hash_layers": 3,
    "num_key_value_heads": 1,
    "num_nextn_predict_layers": 0,
    "o_groups": 2,
    "o_lora_rank": 128,
    "q_lora_rank": 128,
    "qk_rope_head_dim": 64,
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
        "factor": 16,
        "original_max_position_embeddings": 65536,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 1.5,
    "scoring_func": "sqrtsoftplus",
    "sliding_window": 128,
    "swiglu_limit": 10.0,
    "tie_word_embeddings": False,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.1",
    "use_cache": True,
    "vocab_size": 4096,
    "compress_rope_theta": 160000,
    "compress_ratios": [0, 0, 4, 128, 4, 128],
}


def hf_config() -> DeepseekV4Config:
    """The same configuration as transformers reads it, without the file's quantisation."""
    fields = {
        k: v
        for k, v in CONFIG.items()
        if k not in ("quantization_config", "expert_dtype", "torch_dtype")
    }
    config = DeepseekV4Config(**fields)
    config._attn_implementation = "eager"
    return config


def build(seed: int) -> DeepseekV4ForCausalLM:
    """A freshly initialised float32 model on the CPU."""
    torch.manual_seed(seed)
    model = DeepseekV4ForCausalLM(hf_config()).float()
    init_weights(model, seed)
    return model


@torch.no_grad()
def init_weights(model: DeepseekV4ForCausalLM, seed: int) -> None:
    """Initialise in place.

    Mixers: block n reads mostly stream n mod 4 (weight 0.7 against 0.1, summing to 1), writes to
    all four with weight 1, and mixes streams by a matrix near the identity; the asymmetric read is
    what lets the streams differ later. Matrices start with standard deviation 0.7 / sqrt(fan in),
    those that write to the streams smaller by sqrt(2 x layers). Hash tables: every run of four
    token ids shares out one pseudo-random permutation of the experts, so ids load experts evenly.
    """
    config = model.config
    logit = lambda p: math.log(p / (1 - p))  # noqa: E731
    depth = math.sqrt(2 * config.num_hidden_layers)
    for name, p in model.named_parameters():
        if name.endswith(("embed_tokens.weight",)):
            p.normal_(std=0.1)
        elif name.endswith("lm_head.weight"):
            p.normal_(std=0.02)
        elif p.dim() >= 2 and "hc" not in name and "position_bias" not in name:
            std = 0.7 / math.sqrt(p.shape[-1])
            p.normal_(std=std / (depth if "o_b_proj" in name or "down_proj" in name else 1.0))
    block = 0
    for layer in model.model.layers:
        for mixer in (layer.attn_hc, layer.ffn_hc):
            mixer.fn.normal_(std=0.005)
            mixer.scale.fill_(1.0)
            mixer.base.zero_()
            mixer.base[:4] = logit(0.1)
            mixer.base[block % 4] = logit(0.7)
            mixer.base[8:] = 4.0 * torch.eye(4).flatten()
            block += 1
    head = model.model.hc_head
    head.hc_fn.normal_(std=0.005)
    head.hc_base.fill_(logit(0.25))
    head.hc_scale.fill_(1.0)
    for n, layer in enumerate(model.model.layers[: CONFIG["num_hash_layers"]]):
        layer.mlp.gate.tid2eid.copy_(hash_table(seed + n))


def hash_table(seed: int) -> torch.Tensor:
    """int64 [vocab, k]: k distinct experts for every token id, evenly loaded over ids."""
    vocab, experts, k = (
        CONFIG["vocab_size"],
        CONFIG["n_routed_experts"],
        CONFIG["num_experts_per_tok"],
    )
    generator = torch.Generator().manual_seed(seed)
    runs = vocab * k // experts
    return torch.rand(runs, experts, generator=generator).argsort(-1).reshape(vocab, k)
