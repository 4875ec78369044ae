"""config.json: what is accepted, and the sentence with which everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import isobath
from isobath.errors import ConfigError, CorruptCheckpoint, IsobathError, UnsupportedCheckpoint
from isobath.model.fields import IGNORED
from isobath.model.inventory import parameters, tensor_class, tensors
from isobath.model.revision import parse_config, read_config
from tests.support.checkpoints import small_config

FLASH = Path(isobath.__file__).parent / "models" / "flash_config.json"
REMOVE = object()


def flash(**overrides: Any) -> dict[str, Any]:
    raw = json.loads(FLASH.read_text()) | overrides
    return {k: v for k, v in raw.items() if v is not REMOVE}


def quantization(**overrides: Any) -> dict[str, Any]:
    merged = flash()["quantization_config"] | overrides
    return {"quantization_config": {k: v for k, v in merged.items() if v is not REMOVE}}


DSPARK = {
    "compress_ratios": [*flash()["compress_ratios"], 0, 0],
    "dspark_block_size": 5,
    "dspark_target_layer_ids": [40, 41, 42],
    "dspark_noise_token_id": 128799,
    "dspark_markov_rank": 256,
}
PRO = {
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "o_groups": 16,
    "n_routed_experts": 384,
    "moe_intermediate_size": 3072,
    "index_topk": 1024,
    "routed_scaling_factor": 2.5,
    "compress_ratios": [128, 128] + [4, 128] * 29 + [4, 0],
}


def test_flash_of_april_has_43_layers_and_one_mtp_draft() -> None:
    config = read_config(FLASH)
    assert config.num_hidden_layers == len(config.compress_ratios) == 43
    assert [config.compress_ratios.count(r) for r in (0, 4, 128)] == [2, 21, 20]
    assert (config.draft, config.num_draft_layers, config.draft_ratios) == ("mtp", 1, (0,))
    assert (config.rope.theta, config.rope.compress_theta, config.rope.factor) == (1e4, 1.6e5, 16)


def test_flash_0731_is_told_by_dspark_block_size_and_has_three_stages() -> None:
    """It still says num_nextn_predict_layers 1."""
    config = parse_config(flash(**DSPARK), where="0731")
    assert flash()["num_nextn_predict_layers"] == 1
    assert (config.draft, config.num_draft_layers, config.draft_ratios) == ("dspark", 3, (0, 0, 0))
    assert config.compress_ratios == read_config(FLASH).compress_ratios


def test_flash_inventory_is_the_published_index_to_the_byte() -> None:
    specs = tensors(read_config(FLASH))
    assert len(specs) == 69_187
    assert sum(s.nbytes for s in specs.values()) == 159_609_485_896
    assert parameters(specs) == 290_942_289_362
    routed = sum(s.nbytes for n, s in specs.items() if tensor_class(n) == "routed experts")
    assert routed == 138_512_695_296
    draft = [s.nbytes for n, s in specs.items() if tensor_class(n) == "draft"]
    assert (len(draft), sum(draft)) == (1575, 3_593_787_756)


def test_dspark_draft_is_not_enumerated() -> None:
    april = tensors(read_config(FLASH))
    specs = tensors(parse_config(flash(**DSPARK), where="0731"))
    assert specs == {n: s for n, s in april.items() if not n.startswith("mtp.")}


def test_pro_is_accepted_with_the_published_number_of_tensors() -> None:
    config = parse_config(flash(**PRO), where="Pro")
    assert config.compress_ratios[:3] == (128, 128, 4)
    assert len(tensors(config)) == 145_116


def test_expert_dtype_may_be_missing() -> None:
    assert parse_config(flash(expert_dtype=REMOVE), where="first") == read_config(FLASH)


def test_no_draft_and_no_rope_scaling_are_accepted() -> None:
    config = parse_config(small_config(rope_scaling=None), where="small")
    assert (config.draft, config.num_draft_layers, config.draft_ratios) == ("none", 0, ())
    assert config.rope.factor == 1


def test_ignored_fields_change_nothing() -> None:
    extra = dict.fromkeys(IGNORED, 7)
    assert parse_config(flash(**extra), where="x") == read_config(FLASH)


REFUSED = {
    "v41_model_type": (flash(model_type="deepseek_v41"), r"DeepSeek-V4\.1.*Engram.*32 x 32"),
    "v41_architecture": (
        flash(architectures=["DeepseekV41ForCausalLM"]),
        r"DeepSeek-V4\.1.*encoder-decoder",
    ),
    "v41_text_config": (
        {"model_type": "x", "text_config": {"model_type": "deepseek_v41"}},
        r"DeepSeek-V4\.1",
    ),
    "vision": (flash(vision_config={}), r"vision variant.*vision_config"),
    "vision_type": (flash(model_type="deepseek_v4_vision"), "vision variant"),
    "other_model": (flash(model_type="deepseek_v3"), r"'deepseek_v3', isobath runs 'deepseek_v4'"),
    "no_model_type": (flash(model_type=REMOVE), "model_type is None"),
    "other_head": (flash(architectures=["DeepseekV4ForReward"]), "DeepseekV4ForReward"),
    "fp8_experts": (flash(expert_dtype="fp8"), "expert_dtype is 'fp8'.*Flash-Base"),
    "fp8_experts_inside": (flash(**quantization(expert_dtype="fp8")), "Flash-Base"),
    "nvfp4": (flash(**quantization(quant_method="modelopt", quant_algo="NVFP4")), "NVFP4 re-pack"),
    "unquantised": (flash(quantization_config=REMOVE), "quantization_config is missing"),
    "scale_fmt": (flash(**quantization(scale_fmt="float32")), "scale_fmt is 'float32'"),
    "no_scale_fmt": (flash(**quantization(scale_fmt=REMOVE)), "scale_fmt is missing"),
    "block": (
        flash(**quantization(weight_block_size=[32, 32])),
        r"weight_block_size is \[32, 32\]",
    ),
    "static": (flash(**quantization(activation_scheme="static")), "activation_scheme is 'static'"),
    "e5m2": (flash(**quantization(fmt="e5m2")), "fmt is 'e5m2'"),
    "quant_field": (
        flash(**quantization(weight_block_sise=[128, 128])),
        r"unknown field quantization_config\.weight_block_sise.*'weight_block_size'",
    ),
    "scoring": (flash(scoring_func="sigmoid"), "scoring_func is 'sigmoid'.*'sqrtsoftplus' only"),
    "topk": (flash(topk_method="greedy"), "topk_method is 'greedy'"),
    "act": (flash(hidden_act="gelu"), "hidden_act is 'gelu'"),
    "bias": (flash(attention_bias=True), "attention_bias is True"),
    "tied": (flash(tie_word_embeddings=True), "tie_word_embeddings is True"),
    "kv_heads": (flash(num_key_value_heads=2), "num_key_value_heads is 2"),
    "shared": (flash(n_shared_experts=2), "n_shared_experts is 2"),
    "unnormed": (flash(norm_topk_prob=False), "norm_topk_prob is False"),
    "ratio": (flash(compress_ratios=[8] * 44), "compress_ratios contains 8"),
    "rope_type": (flash(rope_scaling={"type": "linear", "factor": 2}), "type 'linear'"),
    "rope_field": (
        flash(rope_scaling=flash()["rope_scaling"] | {"mscale": 1.0}),
        "mscale.*isobath runs 'yarn'",
    ),
    "q_lora": (flash(q_lora_rank=1000), "q_lora_rank is 1000.*multiple of 128"),
    "inner": (flash(moe_intermediate_size=64), "moe_intermediate_size is 64"),
    "transformers": (flash(layer_types=[]), "rewritten by transformers"),
    "typo": (flash(index_top_k=512), "unknown field 'index_top_k'.*'index_topk'"),
    "novelty": (flash(engram_rank=5), "unknown field 'engram_rank'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_kinds_are_refused_in_one_sentence(name: str) -> None:
    raw, sentence = REFUSED[name]
    with pytest.raises(UnsupportedCheckpoint, match=f"(?s)^/models/x: .*{sentence}") as caught:
        parse_config(raw, where="/models/x")
    error = caught.value
    assert error.asked.count("\n") == 0 and error.effect and error.do


NONSENSE = {
    "missing": (flash(index_topk=REMOVE), "'index_topk' is missing"),
    "text": (flash(hidden_size="4096"), "hidden_size must be an integer >= 1"),
    "boolean": (flash(hc_mult=True), "hc_mult must be an integer"),
    "negative": (flash(num_hash_layers=-1), "num_hash_layers must be an integer >= 0"),
    "zero": (flash(rms_norm_eps=0), "rms_norm_eps must be a positive number"),
    "infinite": (flash(swiglu_limit=float("inf")), "swiglu_limit must be a positive number"),
    "eos_list": (flash(eos_token_id=[1, 2]), "eos_token_id must be an integer"),
    "ratios_text": (flash(compress_ratios="0,4"), "compress_ratios must be a list"),
    "ratios_short": (flash(compress_ratios=[4] * 43), "43 layers and 1 draft layers"),
    "ratios_long": (flash(compress_ratios=[4] * 46), "46 entries"),
    "dspark_no_block": (flash(**DSPARK | {"dspark_block_size": REMOVE}), "dspark_block_size"),
    "dspark_no_stage": (flash(**DSPARK, **{}) | {"num_hidden_layers": 46}, "DSpark's draft stages"),
    "rope_text": (flash(rope_scaling="yarn"), "rope_scaling must be an object"),
    "yarn_factor": (
        flash(rope_scaling=flash()["rope_scaling"] | {"factor": 0}),
        "rope_scaling: factor must be a positive number",
    ),
    "groups": (flash(o_groups=7), "o_groups must divide num_attention_heads"),
    "odd_rope": (flash(qk_rope_head_dim=63), "qk_rope_head_dim must be even"),
    "wide_rope": (flash(qk_rope_head_dim=512), "qk_rope_head_dim must be less than head_dim"),
    "index_rope": (flash(qk_rope_head_dim=256), "qk_rope_head_dim must fit index_head_dim"),
    "experts": (flash(num_experts_per_tok=257), "num_experts_per_tok must fit"),
    "hash": (flash(num_hash_layers=44), "num_hash_layers must fit num_hidden_layers"),
    "eos": (flash(eos_token_id=129280), "token ids must fit vocab_size"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_fields_without_meaning_are_named(name: str) -> None:
    raw, sentence = NONSENSE[name]
    with pytest.raises(ConfigError, match=f"(?s)^/models/x: .*{sentence}"):
        parse_config(raw, where="/models/x")


JUDGED = set(small_config()) - IGNORED


@pytest.mark.parametrize("name", sorted(JUDGED))
def test_every_published_field_is_read_checked_or_known_to_be_irrelevant(name: str) -> None:
    """Every field that is not listed as without meaning refuses an absurd value."""
    with pytest.raises(IsobathError):
        parse_config(small_config() | {name: ["absurd"]}, where="x")


def test_broken_files_are_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match=r"config\.json: there is no such file"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(CorruptCheckpoint, match="cannot be read as JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptCheckpoint, match="cannot be read as JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CorruptCheckpoint, match="expected a JSON object"):
        read_config(tmp_path)
