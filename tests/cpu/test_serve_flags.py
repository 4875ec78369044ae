"""`isobath serve`: command lines as recipes have them, and what they come to mean."""

from __future__ import annotations

import logging
import shlex

import pytest
import typer

from isobath.cli import app
from isobath.config import ServerConfig
from isobath.errors import ConfigError
from isobath.server.flag_values import Note, config_of, not_default, tokens
from isobath.server.flags import FLAGS

RECIPES = {
    "data parallel, 8 GPUs": "deepseek-ai/DeepSeek-V4-Flash --trust-remote-code --kv-cache-dtype "
    "fp8 --block-size 256 --enable-expert-parallel --data-parallel-size 8 --compilation-config "
    """'{"cudagraph_mode":"FULL_AND_PIECEWISE","custom_ops":["all"]}' """
    "--attention_config.use_fp4_indexer_cache=True --tokenizer-mode deepseek_v4 --tool-call-parser "
    "deepseek_v4 --enable-auto-tool-choice --reasoning-parser deepseek_v4",
    "drafts, spaces in dotted flags": "deepseek-ai/DeepSeek-V4-Flash --tensor-parallel-size 1 "
    "--pipeline-parallel-size 1 --kv-cache-dtype fp8 --gpu-memory-utilization 0.92 "
    "--attention_config.use_fp4_indexer_cache True --max-cudagraph-capture-size 128 "
    """--speculative-config '{"method":"mtp","num_speculative_tokens":3}' """
    "--no-disable-hybrid-kv-cache-manager",
    "short names": "deepseek-ai/DeepSeek-V4-Flash -tp 1 -dp 8 -ep -q deepseek_v4_fp8 -O3 -O.mode=3 "
    """-cc '{"mode": 3}' -sc '{"method":"mtp"}' --enable-tokenizer-info-endpoint """
    "--disable-custom-all-reduce --limit-mm-per-prompt '{}' --tokenizer-revision main",
    "many small ones": "--model /model --host 0.0.0.0 --port 8900 --served-model-name a b c "
    "--no-enable-prefix-caching --max-model-len 133120 --max-num-batched-tokens 8192 --max-num-seqs"
    " 32 --distributed-executor-backend mp --async-scheduling --enable-chunked-prefill "
    "--enable-flashinfer-autotune --no-enable-flashinfer-autotune --api-server-count 1 "
    """--model-loader-extra-config '{"enable_multithread_load": "true"}' --stream-interval 8 """
    "--safetensors-load-strategy prefetch --default-chat-template-kwargs.thinking true "
    "--disable-log-requests --seed 42 --disable-frontend-multiprocessing --dtype auto "
    "--moe-backend deep_gemm --cudagraph-capture-sizes 1 2 4",
}
"""Shapes of commands that people publish for this model; their flags, with values of our own."""


def parsed(line: str) -> tuple[ServerConfig, list[Note]]:
    group = typer.main.get_command(app)
    context = group.commands["serve"].make_context("serve", shlex.split(line))  # type: ignore[attr-defined]
    given = dict(context.params)
    given["model"] = given.pop("model_folder") or given["model"]
    return config_of(given)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_published_recipe_parses(recipe: str) -> None:
    parsed(recipe)


def test_what_a_recipe_says_arrives() -> None:
    config, notes = parsed(RECIPES["many small ones"])
    assert (config.model, config.host, config.port) == ("/model", "0.0.0.0", 8900)
    assert config.served_model_name == ("a", "b", "c") and config.stream_interval == 8
    assert config.default_chat_template_kwargs == {"thinking": True}
    engine = config.engine
    assert (engine.max_num_seqs, engine.max_batched_tokens) == (32, 8192)
    assert engine.max_model_len == 133120 and not engine.prefix_caching
    assert sum("--seed" in n.text for n in notes) == 1
    assert all(n.level == logging.INFO for n in notes)


def test_each_ignored_flag_is_answered_once_and_a_lost_feature_by_a_warning() -> None:
    _, notes = parsed(RECIPES["drafts, spaces in dotted flags"])
    named = [n.text.split(" ")[0] for n in notes]
    assert len(named) == len(set(named))
    loud = [n for n in notes if n.level == logging.WARNING]
    assert [n.text.split(" ")[0] for n in loud] == ["--speculative-config"]


@pytest.mark.parametrize(
    "line",
    ["--max_num_seqs=7", "--max-num-seqs 7", "--max-num-seqs=7", "--max_num_seqs 7"],
)
def test_spellings_of_one_flag_are_equal(line: str) -> None:
    assert parsed(line)[0].engine.max_num_seqs == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8192", 8192),
        ("128k", 131072),
        ("1M", 1 << 20),
        ("2.5K", 2560),
        ("auto", "auto"),
        ("-1", "auto"),
    ],
)
def test_lengths_are_read_as_people_write_them(text: str, value: object) -> None:
    assert tokens(text) == value
    assert parsed(f"--max-model-len {text}")[0].engine.max_model_len == value


def test_a_flag_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(Exception) as refused:
        parsed("--max-num-seq 4")
    assert "--max-num-seqs" in refused.value.format_message()  # type: ignore[attr-defined]


@pytest.mark.parametrize("flag", ["-tp 4", "--tensor_parallel_size=4", "-tp=4"])
def test_tensor_parallelism_is_refused_with_what_to_do(flag: str) -> None:
    with pytest.raises(ConfigError, match="data-parallel-size 4"):
        parsed(flag)


@pytest.mark.parametrize(
    "line",
    [
        "--kv-cache-dtype fp4",
        "--dtype float16",
        "--max-model-len many",
        "--default-chat-template-kwargs {",
        "--default-chat-template-kwargs 3",
        "--device-ids a",
        "--port 70000",
        "--ssl-keyfile k",
        "--shutdown-timeout=-1",
    ],
)
def test_a_value_that_means_nothing_is_refused(line: str) -> None:
    with pytest.raises(ConfigError):
        parsed(line)


def test_json_flags_add_up_and_no_thinking_is_the_weakest() -> None:
    line = (
        """--default-chat-template-kwargs '{"a": {"b": 1}}' --default-chat-template-kwargs.a.c 2"""
    )
    assert parsed(line)[0].default_chat_template_kwargs == {"a": {"b": 1, "c": 2}}
    assert parsed("--no-thinking")[0].default_chat_template_kwargs == {"thinking": False}
    both = parsed("--no-thinking --default-chat-template-kwargs.thinking true")[0]
    assert both.default_chat_template_kwargs == {"thinking": True}


@pytest.mark.parametrize(
    "text",
    [" guidance", """ '{"backend": "guidance"}'""", ".backend guidance", ".backend=guidance"],
)
def test_the_grammar_library_is_named_by_word_or_json(text: str) -> None:
    config, _ = parsed(f"--structured-outputs-config{text}")
    assert config.engine.structured_outputs == "guidance"


def test_keys_come_from_flags_or_the_environment_and_are_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parsed("--api-key a b --api-key c")[0].api_key == ("a", "b", "c")
    monkeypatch.setenv("ISOBATH_API_KEY", "secret")
    config, _ = parsed("--port 1 --max-num-seqs 3")
    assert config.api_key == ("secret",)
    assert not_default(config) == {"api_key": "***", "port": 1, "max_num_seqs": 3}


def test_the_defaults_are_the_configurations() -> None:
    assert parsed("") == (ServerConfig(), [])
    assert not_default(ServerConfig()) == {}


def test_lists_may_be_json_or_have_commas() -> None:
    config, _ = parsed("""--allowed-origins '["*"]' --device-ids 0,1 2""")
    assert config.allowed_origins == ("*",) and config.device_ids == (0, 1, 2)
    config, _ = parsed("--disable-access-log-for-endpoints /health,/metrics")
    assert config.disable_access_log_for_endpoints == ("/health", "/metrics")


def test_every_flag_has_one_row() -> None:
    names = [name for flag in FLAGS for name in (*flag.names, flag.off) if name]
    assert len(names) == len(set(names))
    fields = [flag.field for flag in FLAGS if flag.field]
    assert len(fields) == len(set(fields))
