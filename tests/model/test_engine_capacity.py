"""How much cache an engine takes: "auto" decided from memory, reported as vLLM does, and honest."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest
import torch

from isobath.cache.pool import allocate_pool
from isobath.config import EngineConfig, ModelConfig
from isobath.engine.capacity import CPU_SHARE, resolve
from isobath.engine.engine import Engine
from isobath.errors import ConfigError
from isobath.numerics import OCP
from isobath.plan import flash_config
from isobath.target import device_memory
from tests.support.serving import Parts, small_parts

CPU = torch.device("cpu")
FLASH = flash_config()
GIB = 1 << 30


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return small_parts(tmp_path_factory.mktemp("capacity"))


def small(plain: bool) -> ModelConfig:
    """Every layer kind, narrow; a plain row is wider than a packed one."""
    return replace(
        FLASH, num_hidden_layers=4, compress_ratios=(0, 4, 128, 4), head_dim=64, qk_rope_head_dim=16
    )


@pytest.mark.parametrize("plain", [False, True], ids=["packed", "plain"])
@pytest.mark.parametrize("options", [
    EngineConfig(num_pages=3, num_snapshots=2, max_num_seqs=2, max_batched_tokens=5),
    EngineConfig(num_pages=7, max_num_seqs=9, max_batched_tokens=64),
    EngineConfig(max_num_seqs=3, max_batched_tokens=7, prefix_caching=False, cache_bytes=1 << 24),
])  # fmt: skip
def test_counted_bytes_are_those_of_the_pool(plain: bool, options: EngineConfig) -> None:
    config = small(plain)
    found = resolve(config, options, plain=plain, device=CPU)
    pool = allocate_pool(
        config,
        slots=options.max_num_seqs + 1,
        snapshots=found.num_snapshots,
        pages=found.num_pages + 1,
        staging=options.max_batched_tokens,
        dialect=OCP,
        plain=plain,
        device=CPU,
        revision="",
    )
    assert found.nbytes == pool.nbytes()


def test_given_bytes_are_filled_to_less_than_a_page() -> None:
    found = resolve(FLASH, EngineConfig(cache_bytes=4 * GIB), plain=False, device=CPU)
    assert 4 * GIB - found.page_bytes < found.nbytes <= 4 * GIB
    assert found.source == "cache_bytes of 4,096.0 MiB"


def test_auto_on_a_cpu_stays_within_its_share() -> None:
    _, total = device_memory(CPU)
    found = resolve(FLASH, EngineConfig(max_num_seqs=1), plain=False, device=CPU)
    share = int(CPU_SHARE * total)
    assert share - found.page_bytes < found.nbytes <= share


def test_no_more_pages_than_all_sequences_need() -> None:
    config = replace(small(False), max_position_embeddings=1000)
    options = EngineConfig(max_num_seqs=3, cache_bytes=GIB)
    found = resolve(config, options, plain=False, device=CPU)
    assert found.num_pages == 3 * 8 and found.concurrency == 3.0
    assert found.source == "every sequence at its longest, within cache_bytes of 1,024.0 MiB"


def test_concurrency_is_limited_by_pages_or_by_slots() -> None:
    """1,048,576 tokens are 8,192 pages."""
    pages = resolve(FLASH, EngineConfig(num_pages=10_000), plain=False, device=CPU)
    slots = resolve(FLASH, EngineConfig(num_pages=100_000, max_num_seqs=4), plain=False, device=CPU)
    assert pages.concurrency == 10_000 / 8192
    assert slots.concurrency == 4.0
    assert slots.token_bytes == 3850.25


def test_memory_that_holds_no_page_is_refused_with_figures() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(FLASH, EngineConfig(cache_bytes=GIB), plain=False, device=CPU)
    # 65 slots of 15,420,416 B (tests/pure/test_plan.py), 32 snapshots of 3,214,336 + 1,720,320 B,
    # 512 tokens of 43 * 584 B and page 0 and one more of 492,832 B: 1,159.... MiB.
    need = 65 * 15_420_416 + 32 * 4_934_656 + 512 * 43 * 584 + 2 * 492_832
    assert f"1,024.0 MiB, and they need {need / (1 << 20):,.1f} MiB" in caught.value.found
    assert caught.value.effect and caught.value.do


def test_an_engine_says_what_it_holds(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "isobath")
    engine = Engine(*parts, EngineConfig(num_pages=100, max_num_seqs=8))
    line, basis = caplog.messages
    # The context is 4,096 tokens, 32 pages: 100 / 32 = 3.125.
    assert line == (
        "GPU KV cache size: 12,800 tokens, Maximum concurrency for 4,096 tokens per request: 3.12x"
    )
    # A page has 32 rows of 84 + 36 bytes and one of 84: 30.66 bytes a token.
    assert basis.endswith("100 pages (30.66 B a token), 8 slots, 4 snapshots; num_pages was given")
    assert engine.capacity.report() == (line, basis)
    assert engine.pages.num_free == engine.capacity.num_pages == 100


def test_an_engine_of_defaults_is_sized_by_the_machine(parts: Parts) -> None:
    engine = Engine(*parts, EngineConfig())
    # 64 sequences of 4,096 tokens are 2,048 pages of 24 KiB, which any machine has.
    assert engine.capacity.num_pages == engine.pages.num_free == 64 * 32
    assert re.search(r"12\.50% of [\d,]+ MiB of memory", engine.capacity.source)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_pages": 0},
        {"num_snapshots": -1},
        {"gpu_memory_utilization": 1.5},
        {"check": "always"},
        {"max_num_seqs": 1000},
    ],
)
def test_a_config_that_cannot_mean_anything_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EngineConfig(**wrong)


def test_the_environment_sets_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EngineConfig().check == "off"
    monkeypatch.setenv("ISOBATH_CHECK", "idle")
    assert EngineConfig().check == "idle"
    assert EngineConfig(check="step").check == "step"
    monkeypatch.setenv("ISOBATH_CHECKS", "step")
    with pytest.raises(ConfigError, match="ISOBATH_CHECKS") as caught:
        EngineConfig()
    assert "perhaps ISOBATH_CHECK was meant" in caught.value.do
