"""The engine under random traffic: every request gets what it would get alone, nothing is lost.

What random schedules are worth depends on what happened in them, so it is counted: a run in which
nothing was preempted, evicted, cut into chunks, aborted or found in the cache fails.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath.cache.pool import PAGE_TOKENS
from isobath.config import EngineConfig
from isobath.engine.request import Request
from isobath.engine.sampling import SamplingParams
from tests.support.serving import PREFIX, VOCAB, Got, Parts, Watched, alone, serve, small_parts

MAX_TOKENS = 12
INGREDIENTS = {
    "steps",
    "preemptions",
    "cache hits",
    "evicted blocks",
    "aborted while open",
    "prompts in chunks",
    "decode beside prefill",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return small_parts(tmp_path_factory.mktemp("traffic"))


@pytest.fixture(scope="module")
def memo() -> dict[tuple[object, ...], Got]:
    """Results of requests that ran alone."""
    return {}


def wanted(parts: Parts, memo: dict[tuple[object, ...], Got], request: Request) -> Got:
    """What the request gets alone: both completions at full length, computed once for all requests
    with this prompt that draw alike."""
    params = request.params
    key = (request.token_ids, params.temperature, params.temperature and params.seed)
    if key not in memo:
        most = replace(params, max_tokens=MAX_TOKENS, n=2)
        memo[key] = alone(parts, replace(request, params=most))
    return memo[key]


@st.composite
def traffic(draw: st.DrawFn) -> tuple[dict[int, list[Request]], dict[int, list[int]]]:
    """Arrivals and aborts by step. Prompts share beginnings of PREFIX and then differ; half of them
    end just before a page does, so that decoding needs a new one."""
    arrivals: dict[int, list[Request]] = {}
    aborts: dict[int, list[int]] = {}
    for i in range(draw(st.integers(1, 6))):
        shared = PREFIX[: draw(st.sampled_from([0, 0, 5, 127, 128, 129, 256]))]
        size, kind = draw(st.sampled_from([1, 40, 0, 0])), draw(st.integers(0, 1))
        size = size or (-len(shared) - 3) % PAGE_TOKENS
        own = [2 + (kind * 29 + 11 * j) % (VOCAB - 2) for j in range(size)]
        params = SamplingParams(
            max_tokens=draw(st.integers(1, MAX_TOKENS)),
            temperature=draw(st.sampled_from([0.0, 0.0, 1.0])),
            seed=draw(st.integers(0, 1)),
            ignore_eos=True,
            n=draw(st.sampled_from([1, 1, 1, 2])),
        )
        at = draw(st.integers(0, 4))
        arrivals.setdefault(at, []).append(Request(i, tuple(shared + own), params))
        if draw(st.integers(0, 4)) == 0:
            aborts.setdefault(at + draw(st.integers(0, 6)), []).append(i)
    return arrivals, aborts


def judge(engine: Watched, parts: Parts, memo: dict[tuple[object, ...], Got], load: tuple) -> None:
    """Run the traffic `load` to its end and compare every request with itself alone."""
    arrivals, aborts = load
    got = serve(engine, arrivals, aborts)
    aborted = {i for ids in aborts.values() for i in ids}
    for request in (r for requests in arrivals.values() for r in requests):
        mine, want = got[request.id], wanted(parts, memo, request)
        length = request.params.max_tokens
        assert not mine.error, mine.error
        for index, tokens in mine.tokens.items():
            told = len(tokens) if request.id in aborted else length
            assert tokens == want.tokens[index][:told], (request.id, index)
            assert len(tokens) <= length
        if request.id not in aborted:
            assert mine.reasons == dict.fromkeys(range(request.params.n), "length")
        engine.seen["aborted while open"] += "abort" in mine.reasons.values()
    engine.seen["preemptions"] += engine.scheduler.num_preemptions


@pytest.mark.parametrize("schedules", [100, pytest.param(400, marks=pytest.mark.nightly)])
def test_every_request_gets_what_it_would_get_alone(
    parts: Parts, memo: dict[tuple[object, ...], Got], schedules: int
) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=schedules, deadline=None)
    @given(
        load=traffic(),
        budget=st.sampled_from([9, 64, 130, 512]),
        pages=st.sampled_from([4, 4, 5, 40]),
        seqs=st.sampled_from([1, 3, 4]),
    )
    def check(load: tuple, budget: int, pages: int, seqs: int) -> None:
        options = EngineConfig(
            max_batched_tokens=budget,
            max_num_seqs=seqs,
            num_pages=pages,
            num_snapshots=2,
            check="step",
        )
        engine = Watched(*parts, options)
        judge(engine, parts, memo, load)
        assert engine.largest <= budget
        assert engine.prefixes is not None
        assert engine.pages.num_free + len(engine.prefixes) == pages
        engine.prefixes.evict(pages)
        assert engine.pages.num_free == pages and engine.slots.num_free == seqs
        seen.update(engine.seen)
        seen["schedules"] += 1

    check()
    print(dict(seen))
    assert seen["schedules"] >= schedules
    assert {name for name in INGREDIENTS if seen[name]} == INGREDIENTS, seen
