"""The fields of a DeepSeek-V4 config.json: the file, which are known, and typed reading of one.

A field is read (POSITIVE_INTS, COUNTS, POSITIVE_FLOATS, STRUCTURED, DSPARK), must have one value
(FIXED, QUANTIZATION), or has no meaning for inference (IGNORED). What follows from their values is
revision.py's business.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from isobath.errors import ConfigError, CorruptCheckpoint

POSITIVE_INTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "head_dim",
    "qk_rope_head_dim",
    "q_lora_rank",
    "o_groups",
    "o_lora_rank",
    "sliding_window",
    "index_n_heads",
    "index_head_dim",
    "index_topk",
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "hc_mult",
    "hc_sinkhorn_iters",
    "max_position_embeddings",
)
COUNTS = ("num_hash_layers", "bos_token_id", "eos_token_id")
POSITIVE_FLOATS = ("routed_scaling_factor", "swiglu_limit", "hc_eps", "rms_norm_eps")

FIXED: dict[str, tuple[Any, str]] = {
    "hidden_act": ("silu", "the experts compute silu(gate) * up and nothing else"),
    "scoring_func": ("sqrtsoftplus", "the router computes sqrt(softplus(logits)) and nothing else"),
    "topk_method": ("noaux_tc", "the router takes the top-k of scores plus bias, without groups"),
    "norm_topk_prob": (True, "route weights are divided by their sum"),
    "n_shared_experts": (1, "one shared expert is added to the routed ones"),
    "num_key_value_heads": (1, "all query heads share one key/value row"),
    "attention_bias": (False, "the attention projections have no bias"),
    "mlp_bias": (False, "the experts have no bias"),
    "tie_word_embeddings": (False, "the LM head is a matrix of its own"),
    "is_encoder_decoder": (False, "the model is decoder-only"),
}
"""Fields that must have one value when they are there, and why."""

QUANTIZATION: dict[str, Any] = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "scale_fmt": "ue8m0",
    "weight_block_size": [128, 128],
    "activation_scheme": "dynamic",
}

IGNORED = frozenset(
    {
        # the writer, and the dtype that a training framework would use
        *("transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map"),
        # training
        *("initializer_range", "attention_dropout", "output_router_logits"),
        *("router_aux_loss_coef", "router_jitter_noise", "aux_loss_alpha", "seq_aux"),
        # generation and transformers' own interface
        *("use_cache", "pad_token_id", "output_hidden_states", "output_attentions", "return_dict"),
        *("chunk_size_feed_forward", "problem_type", "id2label", "label2id"),
    }
)
"""Known fields without a meaning for inference."""

DSPARK = (
    "dspark_block_size",
    "dspark_target_layer_ids",
    "dspark_noise_token_id",
    "dspark_markov_rank",
)
STRUCTURED = (
    "architectures",
    "model_type",
    "compress_ratios",
    "compress_rope_theta",
    "expert_dtype",
    "num_nextn_predict_layers",
    "quantization_config",
    "rope_scaling",
    "rope_theta",
)
KNOWN = (
    frozenset((*POSITIVE_INTS, *COUNTS, *POSITIVE_FLOATS, *FIXED, *DSPARK, *STRUCTURED)) | IGNORED
)
YARN = ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow")


def config_path(path: str | Path) -> Path:
    """The config.json of a checkpoint folder (or the file itself, when that is given)."""
    path = Path(path)
    return path if path.suffix == ".json" else path / "config.json"


def read_json(path: str | Path) -> dict[str, Any]:
    """The fields of config.json as they are. Raises CorruptCheckpoint."""
    file = config_path(path)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CorruptCheckpoint(
            f"{file}: there is no such file",
            found=", ".join(sorted(p.name for p in file.parent.glob("*"))[:8]) or "an empty folder",
            effect="without config.json the model's shape is unknown",
            do="pass the folder of a DeepSeek-V4 checkpoint",
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptCheckpoint(
            f"{file}: cannot be read as JSON", found=str(error), do="download config.json again"
        ) from error
    if not isinstance(raw, dict):
        raise CorruptCheckpoint(
            f"{file}: expected a JSON object", found=type(raw).__name__, do="download it again"
        )
    return raw


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]


def need(raw: Mapping[str, Any], name: str, where: str) -> Any:
    """raw[name]; ConfigError when it is missing."""
    if name not in raw:
        raise ConfigError(
            f"{where}: field {name!r} is missing",
            effect="the model's shape or maths would be guessed",
            do="take config.json from the published checkpoint",
        )
    return raw[name]


def bad(where: str, name: str, expected: str, value: Any) -> NoReturn:
    """Raise ConfigError for a field of the wrong type or range."""
    raise ConfigError(
        f"{where}: {name} must be {expected}",
        found=repr(value)[:200],
        effect="no model has this shape",
        do="take config.json from the published checkpoint",
    )


def integer(raw: Mapping[str, Any], name: str, where: str, *, least: int = 0) -> int:
    """raw[name] as an integer of at least `least` (true and false are none)."""
    value = need(raw, name, where)
    if type(value) is not int or value < least:
        bad(where, name, f"an integer >= {least}", value)
    return value


def number(raw: Mapping[str, Any], name: str, where: str) -> float:
    """raw[name] as a positive, finite float."""
    value = need(raw, name, where)
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        bad(where, name, "a positive number", value)
    return float(value)
