"""What an engine counts about itself, against what its requests were told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from isobath import AsyncLLM, SamplingParams
from isobath.cache.prefix import BLOCK_TOKENS
from isobath.config import EngineConfig
from isobath.engine.engine import Engine
from isobath.engine.request import Finished, Request
from isobath.engine.statistics import INTERVAL_SECONDS, STEP_TOKENS, EngineStatistics, Meter
from tests.support.serving import PREFIX, Parts, serve, small_parts

SHORT = SamplingParams(max_tokens=5, ignore_eos=True)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return small_parts(tmp_path_factory.mktemp("statistics"))


def engine(parts: Parts, **more: int) -> Engine:
    options = EngineConfig(max_batched_tokens=64, max_num_seqs=4, **{"num_pages": 64} | more)
    return Engine(*parts, options)


def test_counters_add_up_to_what_was_asked_and_told(parts: Parts) -> None:
    made = engine(parts)
    requests = [Request(i, tuple(PREFIX[: 20 + 30 * i]), SHORT) for i in range(4)]
    got = serve(made, {0: requests})
    seen = made.statistics()
    assert seen.prompt_tokens == sum(len(r.token_ids) for r in requests)
    assert seen.generation_tokens == sum(len(g.tokens[0]) for g in got.values()) == 20
    # A request's last token is never computed: nothing follows it.
    assert seen.computed_tokens == seen.prompt_tokens + seen.generation_tokens - len(requests)
    assert sum(seen.step_tokens) > 0 and len(seen.step_tokens) == len(STEP_TOKENS) + 1
    assert seen.idle and seen.kv_cache_usage == 0


def test_prefix_counters_are_the_cached_tokens(parts: Parts) -> None:
    made = engine(parts)
    prompt = tuple(PREFIX[: 2 * BLOCK_TOKENS + 10])
    first = serve(made, {0: [Request(0, prompt, SHORT)]})
    assert (made.statistics().prefix_queries, made.statistics().prefix_hits) == (len(prompt), 0)
    second = serve(made, {0: [Request(1, prompt, SHORT)]})
    seen = made.statistics()
    assert first[0].cached == 0 and second[1].cached == seen.prefix_hits == 2 * BLOCK_TOKENS
    assert seen.prefix_queries == 2 * len(prompt)


def test_usage_counts_a_shared_page_once(parts: Parts) -> None:
    made = engine(parts)
    prompt = tuple(PREFIX[: 2 * BLOCK_TOKENS + 10])
    serve(made, {0: [Request(0, prompt, SHORT)]})
    for i in (1, 2):
        made.submit(Request(i, prompt, SHORT))
    made.step()
    assert made.statistics().running == 2
    assert made.statistics().kv_cache_usage == pytest.approx((2 + 1 + 1) / 64)  # 2 shared, 1 each


def test_times_of_a_request_are_in_order(parts: Parts) -> None:
    made = engine(parts)
    before = time.monotonic()
    made.submit(Request(0, tuple(PREFIX[:100]), SHORT))
    ended = None
    while made.busy:
        ended = next((e for e in made.step() if isinstance(e, Finished)), ended)
    assert ended is not None and ended.times is not None
    t = ended.times
    assert before <= t.queued <= t.scheduled <= t.first <= t.last <= time.monotonic()


def test_a_busy_meter_waits_and_an_idle_one_tells_once() -> None:
    meter = Meter(EngineStatistics)
    assert meter.reading(idle=True) and not meter.reading(idle=True)
    meter.reading(idle=False)
    busy = [meter.reading(idle=False) for _ in range(10)]
    assert not any(busy)
    assert meter.reading(idle=True), "the end of work is told at once"
    time.sleep(INTERVAL_SECONDS)
    assert meter.reading(idle=False)


def test_statistics_cross_the_process_and_end_at_rest() -> None:
    async def main() -> EngineStatistics:
        async with AsyncLLM() as llm:
            async for piece in llm.generate("The json module", SHORT):
                done = piece.completion
            assert done is not None and done.times is not None
            limit = time.monotonic() + 10
            while llm.statistics()[0].generation_tokens < 5 or not llm.statistics()[0].idle:
                assert time.monotonic() < limit
                await asyncio.sleep(0.01)
            facts = llm.limits.facts
            assert facts is not None and facts.ops and facts.num_pages
            return llm.statistics()[0]

    seen = asyncio.run(main())
    assert seen.generation_tokens == 5 and seen.kv_cache_usage == 0 and seen.num_pages > 0


def test_a_length_that_the_cache_cannot_hold_is_refused_with_the_one_it_can(
    parts: Parts, tmp_path: Path
) -> None:
    assert engine(parts, num_pages=4).capacity.context == 4 * BLOCK_TOKENS
    assert engine(parts, max_model_len=100).capacity.context == 100
    with pytest.raises(Exception, match=f"lower max_model_len to {4 * BLOCK_TOKENS}"):
        engine(parts, num_pages=4, max_model_len=3000)
