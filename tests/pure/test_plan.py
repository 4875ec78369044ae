"""Bytes of weights and cache, against figures that were published or derived by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath.config import ModelConfig
from isobath.errors import ConfigError
from isobath.model.inventory import tensors
from isobath.plan import GIB, GPUS, flash_config, gpu, kv_bytes, parse_tokens, plan, weight_bytes

FLASH = flash_config()
FIXED = 15_420_416  # window 3,214,336 + C4 state 1,376,256 + index state 344,064 + C128 10,485,760


def test_flash_weights_are_the_published_bytes() -> None:
    published = 159_609_485_896  # total_size of the published index, draft layer included
    draft = 3_593_787_756
    assert sum(spec.nbytes for spec in tensors(FLASH).values()) == published
    assert weight_bytes(FLASH) == published - draft


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (128, FIXED + 21 * 32 * 716 + 20 * 584),
        (131_072, 520_080_384),
        (1_048_576, 4_052_700_160),
    ],
)
def test_flash_cache_bytes(tokens: int, expected: int) -> None:
    assert kv_bytes(FLASH, tokens) == expected


@given(st.integers(128, 1_048_576))
def test_flash_cache_follows_its_formula_once_window_is_full(n: int) -> None:
    assert kv_bytes(FLASH, n) == 21 * (n // 4) * 716 + 20 * (n // 128) * 584 + FIXED


def test_flash_marginal_bytes_of_a_token() -> None:
    grown = kv_bytes(FLASH, 256) - kv_bytes(FLASH, 128)
    assert Fraction(grown, 128) == Fraction(385_025, 100)  # 3850.25


def test_pro_marginal_bytes_of_a_token() -> None:
    """V4-Pro: 30 layers of ratio 4 and 31 of ratio 128 have 5511 bytes a token, rounded down."""
    pro = replace(FLASH, compress_ratios=(128, *(4, 128) * 30), num_hidden_layers=61)
    assert (kv_bytes(pro, 256) - kv_bytes(pro, 128)) // 128 == 5511


@given(st.integers(0, 5000))
def test_cache_never_shrinks_with_a_token(n: int) -> None:
    assert kv_bytes(FLASH, n) <= kv_bytes(FLASH, n + 1)


def test_empty_sequence_has_no_cache() -> None:
    assert kv_bytes(FLASH, 0) == 0


def test_window_only_model_stops_growing_at_its_window() -> None:
    config = replace(FLASH, compress_ratios=(0, 0), num_hidden_layers=2)
    assert kv_bytes(config, 10_000) == 2 * 128 * 584 == kv_bytes(config, 128)


def test_h200_is_short_of_the_weights_alone() -> None:
    result = plan(FLASH, GPUS["h200"].memory_bytes, context=8192)
    assert not result.fits and result.max_sequences == result.max_context == 0
    assert result.verdict == "does not fit: the weights alone need 4.90 GiB more"


def test_mi300x_holds_weights_and_sequences() -> None:
    result = plan(FLASH, GPUS["mi300x"].memory_bytes, context=131_072, concurrency=64)
    assert result.fits
    assert result.memory_bytes - result.weight_bytes == pytest.approx(46.70 * GIB, abs=0.005 * GIB)
    assert result.max_sequences == result.cache_bytes // 520_080_384 == 79


def test_reserve_can_be_what_does_not_fit() -> None:
    result = plan(FLASH, weight_bytes(FLASH) + GIB, context=128, reserve=2 * GIB)
    assert result.verdict == "does not fit: the weights leave 1.00 GiB of the 2.00 GiB reserve"


def test_context_of_one_sequence_is_capped_by_the_models_positions() -> None:
    result = plan(FLASH, GPUS["mi355x"].memory_bytes, context=8192)
    assert result.max_context == FLASH.max_position_embeddings


def room(config: ModelConfig, spare: int, context: int, concurrency: int) -> int:
    return weight_bytes(config) + kv_bytes(config, context) * concurrency + spare


@settings(deadline=None)
@given(st.integers(1, 1_048_576), st.integers(1, 4096))
def test_limits_are_tight(context: int, concurrency: int) -> None:
    """Memory for exactly this workload fits it; one byte less does not."""
    for spare, fits in ((0, True), (-1, False)):
        memory = room(FLASH, spare, context, concurrency)
        result = plan(FLASH, memory, context=context, concurrency=concurrency, reserve=0)
        assert result.fits is fits
        assert (result.max_sequences >= concurrency) is fits
        assert (result.max_context >= context) is fits


@pytest.mark.parametrize("change", [{"context": 0}, {"context": 1_048_577}, {"concurrency": 0}])
def test_impossible_workload_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        plan(FLASH, GIB, **({"context": 128, "concurrency": 1} | change))


@pytest.mark.parametrize(
    ("text", "tokens"), [("8192", 8192), ("128k", 131_072), ("1M", 1_048_576), ("8,192", 8192)]
)
def test_context_is_read_in_binary_units(text: str, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "k", "1.5k", "-1", "8 GB"])
def test_context_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no number of tokens"):
        parse_tokens(text)


def test_gpu_is_found_in_any_case_and_unknown_ones_are_refused() -> None:
    assert gpu("mi300X").arch == "gfx942"
    with pytest.raises(ConfigError, match="h200"):
        gpu("mi999")
