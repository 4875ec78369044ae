"""config.json -> ModelConfig: which checkpoints isobath runs, and a sentence for each other one.

Accepted are the model_type `deepseek_v4` releases with MXFP4 experts and FP8 weights in 128 x 128
blocks: V4-Flash (April), V4-Flash-0731 (DSpark draft), V4-Pro, and smaller models of that shape.
Any field that fields.py does not know is refused, because it may change the maths. `expert_dtype`
may be missing: the tensors decide FP4 or FP8 (see binder.py). Nothing here opens a weight file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from isobath.config import ModelConfig, RopeConfig
from isobath.errors import ConfigError, UnsupportedCheckpoint
from isobath.model.fields import (
    COUNTS,
    DSPARK,
    FIXED,
    KNOWN,
    POSITIVE_FLOATS,
    POSITIVE_INTS,
    QUANTIZATION,
    YARN,
    bad,
    config_path,
    integer,
    nearest,
    need,
    number,
    read_json,
)


def read_config(path: str | Path) -> ModelConfig:
    """Read `path`, a checkpoint folder or its config.json.

    Raises CorruptCheckpoint when the file is missing or not JSON, and what parse_config() raises.
    """
    return parse_config(read_json(path), where=str(config_path(path)))


def parse_config(raw: Mapping[str, Any], *, where: str) -> ModelConfig:
    """Check the fields of a config.json and put them into our words.

    raw: the parsed file. where: what to call it in messages. Raises UnsupportedCheckpoint for a
    model that isobath does not run, ConfigError for a field that cannot mean anything.
    """
    _refuse_other_models(raw, where)
    _refuse_unknown_fields(raw, where)
    _refuse_other_values(raw, where)
    _check_quantization(raw, where)
    ints: dict[str, Any] = {name: integer(raw, name, where, least=1) for name in POSITIVE_INTS}
    ints |= {name: integer(raw, name, where, least=0) for name in COUNTS}
    floats: dict[str, Any] = {name: number(raw, name, where) for name in POSITIVE_FLOATS}
    ratios = _ratios(raw, where)
    draft, stages = _draft(raw, len(ratios) - ints["num_hidden_layers"], where)
    layers = ints["num_hidden_layers"]
    if len(ratios) != layers + stages:
        raise ConfigError(
            f"{where}: compress_ratios needs one entry for each of {layers} layers and {stages} "
            "draft layers",
            found=f"{len(ratios)} entries",
            effect="a layer would attend with another layer's ratio",
            do="take config.json from the same revision as the weights",
        )
    config = ModelConfig(
        **ints,
        **floats,
        compress_ratios=ratios[:layers],
        draft_ratios=ratios[layers:],
        rope=_rope(raw, ints["max_position_embeddings"], where),
        draft=draft,
        num_draft_layers=stages,
    )
    _check_shape(config, where)
    return config


def _refuse(where: str, what: str, why: str, do: str = "") -> NoReturn:
    raise UnsupportedCheckpoint(
        f"{where}: {what}",
        effect=why,
        do=do or "use deepseek-ai/DeepSeek-V4-Flash or DeepSeek-V4-Flash-0731",
    )


def _refuse_other_models(raw: Mapping[str, Any], where: str) -> None:
    text = raw.get("text_config")
    kinds = [str(raw.get("model_type", ""))]
    kinds += [str(name) for name in raw.get("architectures") or ()]
    kinds += [str(text.get("model_type", ""))] if isinstance(text, dict) else []
    lowered = " ".join(kinds).lower().replace("_", "").replace(".", "")
    if "deepseekv41" in lowered:
        _refuse(
            where,
            "this is DeepSeek-V4.1, another architecture: a causal encoder-decoder with Engram "
            "tables and FP8 weights in 32 x 32 blocks",
            "its layers have no counterpart in V4, and it does not fit one GPU",
        )
    vision = [k for k in raw if "vision" in k or "image" in k]
    if vision or "vision" in lowered or "deepseekv4vl" in lowered or "deepseekvlv4" in lowered:
        _refuse(
            where,
            f"this is a vision variant of DeepSeek-V4 ({', '.join(vision) or kinds[0]})",
            "isobath runs text models only and would ignore the images",
        )
    if raw.get("model_type") != "deepseek_v4":
        _refuse(
            where,
            f"model_type is {raw.get('model_type')!r}, isobath runs 'deepseek_v4' only",
            "another model's weights would not bind",
        )
    architectures = raw.get("architectures")
    if architectures is not None and architectures != ["DeepseekV4ForCausalLM"]:
        _refuse(
            where,
            f"architectures is {architectures!r}, isobath runs ['DeepseekV4ForCausalLM'] only",
            "another head on the same layers answers another question",
        )


def _refuse_unknown_fields(raw: Mapping[str, Any], where: str) -> None:
    rewritten = [k for k in ("layer_types", "mlp_layer_types", "rope_parameters") if k in raw]
    if rewritten:
        _refuse(
            where,
            f"this checkpoint was rewritten by transformers ({', '.join(rewritten)})",
            "its tensors have other names and its experts are stacked",
            "use the checkpoint in its published form",
        )
    for name in raw:
        if name in KNOWN:
            continue
        near = nearest(name, KNOWN)
        _refuse(
            where,
            f"unknown field {name!r} (the nearest known one is {near!r})",
            "a field that isobath does not know may change the maths",
            "use a revision that isobath knows; if the field has no effect on inference, add it to "
            "IGNORED in isobath/model/fields.py",
        )


def _refuse_other_values(raw: Mapping[str, Any], where: str) -> None:
    for name, (value, why) in FIXED.items():
        if name in raw and (raw[name] != value or type(raw[name]) is not type(value)):
            _refuse(where, f"{name} is {raw[name]!r}, isobath runs {value!r} only", why)


def _check_quantization(raw: Mapping[str, Any], where: str) -> None:
    quant = raw.get("quantization_config")
    if not isinstance(quant, dict):
        _refuse(
            where,
            "quantization_config is missing, so the weights are not the published FP8 ones",
            "isobath reads FP8 weights in 128 x 128 blocks and MXFP4 experts",
        )
    described = json.dumps(quant).lower()
    if "nvfp4" in described:
        _refuse(
            where,
            "this is an NVFP4 re-pack (FP4 values with FP8 scales per 16)",
            "isobath reads MXFP4 experts, with UE8M0 scales per 32",
        )
    for name, value in quant.items():
        if name == "expert_dtype":
            continue
        if name not in QUANTIZATION:
            near = nearest(name, QUANTIZATION)
            _refuse(
                where,
                f"unknown field quantization_config.{name} (the nearest known one is {near!r})",
                "the weights may be stored in a form that isobath does not know",
            )
        if value != QUANTIZATION[name]:
            _refuse(
                where,
                f"quantization_config.{name} is {value!r}, isobath reads {QUANTIZATION[name]!r} "
                "only",
                "every weight would be decoded wrongly",
            )
    for name in ("quant_method", "weight_block_size", "scale_fmt"):
        if name not in quant:
            _refuse(
                where,
                f"quantization_config.{name} is missing, isobath reads {QUANTIZATION[name]!r} only",
                "Flash-Base for instance has fp32 scales, which would be decoded wrongly",
            )
    for expert_dtype in (raw.get("expert_dtype"), quant.get("expert_dtype")):
        if expert_dtype not in (None, "fp4"):
            refuse_fp8_experts(where, f"expert_dtype is {expert_dtype!r}")


def refuse_fp8_experts(where: str, evidence: str) -> NoReturn:
    """Flash-Base and FP8 re-packs: `evidence` is what gave them away."""
    _refuse(
        where,
        f"the routed experts are not MXFP4 ({evidence}): this is Flash-Base or a re-pack",
        "with FP8 experts the model is 284 GB and the expert kernels would misread every weight",
    )


def _ratios(raw: Mapping[str, Any], where: str) -> tuple[int, ...]:
    ratios = need(raw, "compress_ratios", where)
    if not isinstance(ratios, list) or any(type(r) is not int for r in ratios):
        bad(where, "compress_ratios", "a list of integers", ratios)
    other = sorted(set(ratios) - {0, 4, 128})
    if other:
        _refuse(
            where,
            f"compress_ratios contains {other[0]}, isobath runs 0, 4 and 128 only",
            "there is no compressor for that ratio",
        )
    return tuple(ratios)


def _draft(raw: Mapping[str, Any], spare: int, where: str) -> tuple[str, int]:
    """Kind and number of draft layers. The 0731 release still says num_nextn_predict_layers 1."""
    present = [name for name in DSPARK if raw.get(name) is not None]
    if raw.get("dspark_block_size"):
        integer(raw, "dspark_block_size", where, least=1)
        if spare < 1:
            bad(where, "compress_ratios", "entries for DSpark's draft stages", f"{spare} spare")
        return "dspark", spare
    if present:
        bad(where, "dspark_block_size", f"a positive integer beside {present[0]}", None)
    stages = integer({"num_nextn_predict_layers": 0} | dict(raw), "num_nextn_predict_layers", where)
    return ("mtp", stages) if stages else ("none", 0)


def _rope(raw: Mapping[str, Any], max_position: int, where: str) -> RopeConfig:
    theta, compress = (number(raw, n, where) for n in ("rope_theta", "compress_rope_theta"))
    scaling = raw.get("rope_scaling")
    if scaling is None:
        return RopeConfig(theta, compress, 1.0, max_position, 32.0, 1.0)
    if not isinstance(scaling, dict):
        bad(where, "rope_scaling", "an object or null", scaling)
    kind = scaling.get("type", scaling.get("rope_type"))
    unknown = sorted(set(scaling) - {"type", "rope_type", *YARN})
    if kind != "yarn" or unknown:
        _refuse(
            where,
            f"rope_scaling is of type {kind!r} with fields {sorted(scaling)}, isobath runs 'yarn' "
            f"with {', '.join(YARN)} only",
            "positions would be rotated by other angles",
        )
    where = f"{where}: rope_scaling"
    return RopeConfig(
        theta=theta,
        compress_theta=compress,
        factor=number(scaling, "factor", where),
        original_max_position=integer(scaling, "original_max_position_embeddings", where, least=1),
        beta_fast=number(scaling, "beta_fast", where),
        beta_slow=number(scaling, "beta_slow", where),
    )


def _check_shape(c: ModelConfig, where: str) -> None:
    """Relations between fields that the model or the number formats rely on."""
    block = 128
    for name in ("hidden_size", "q_lora_rank", "o_lora_rank", "moe_intermediate_size"):
        if getattr(c, name) % block:
            _refuse(
                where,
                f"{name} is {getattr(c, name)}, isobath needs a multiple of {block}",
                "FP8 matrices are quantised and fused in blocks of 128, which would be cut in two",
            )
    rules = (
        (c.num_attention_heads % c.o_groups == 0, "o_groups must divide num_attention_heads"),
        (c.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim must be even"),
        (c.qk_rope_head_dim < c.head_dim, "qk_rope_head_dim must be less than head_dim"),
        (c.qk_rope_head_dim <= c.index_head_dim, "qk_rope_head_dim must fit index_head_dim"),
        (c.num_experts_per_tok <= c.n_routed_experts, "num_experts_per_tok must fit the experts"),
        (c.num_hash_layers <= c.num_hidden_layers, "num_hash_layers must fit num_hidden_layers"),
        (max(c.bos_token_id, c.eos_token_id) < c.vocab_size, "token ids must fit vocab_size"),
    )
    for holds, rule in rules:
        if not holds:
            names = [w for w in rule.split() if hasattr(c, w)]
            raise ConfigError(
                f"{where}: {rule}",
                found=", ".join(f"{n} = {getattr(c, n)}" for n in names) or str(c),
                effect="no model has this shape",
                do="take config.json from the published checkpoint",
            )
