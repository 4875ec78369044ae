"""The engine, one behaviour at a time: budgets, the prefix cache, page pressure and faults.

test_engine_traffic.py mixes all of them at random.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from isobath.config import EngineConfig
from isobath.engine.engine import Engine
from isobath.engine.request import Failed, Request
from isobath.engine.sampling import SamplingParams
from isobath.ops.contract import Backend
from tests.support.serving import PREFIX, VOCAB, Got, Parts, Watched, alone, serve, small_parts

SIX = SamplingParams(max_tokens=6, ignore_eos=True)
TOLD = SamplingParams(max_tokens=6, ignore_eos=True, logprobs=20)
"""Log-probabilities are over the whole vocabulary: one other logit would change them."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return small_parts(tmp_path_factory.mktemp("engine"))


def prompt(seed: int, size: int) -> tuple[int, ...]:
    """Tokens that share no beginning with PREFIX nor with other seeds."""
    return tuple(2 + (31 * seed + 17 * i) % (VOCAB - 2) for i in range(size))


def test_no_step_exceeds_its_budget(parts: Parts) -> None:
    engine = Watched(*parts, EngineConfig(max_batched_tokens=16, max_num_seqs=4, num_pages=32))
    params = SamplingParams(max_tokens=5, ignore_eos=True)
    serve(engine, {0: [Request(i, tuple(range(2, 60 + i)), params) for i in range(6)]})
    assert engine.largest == 16 and engine.seen["steps"] >= 6 * 58 // 16


# ---- the prefix cache


def test_a_second_identical_prompt_starts_from_the_cache(parts: Parts) -> None:
    engine = Engine(*parts, EngineConfig(num_pages=32))
    first = serve(engine, {0: [Request(0, tuple(PREFIX[:300]), SIX)]})[0]
    again = serve(engine, {0: [Request(1, tuple(PREFIX[:300]), SIX)]})[1]
    assert (first.cached, again.cached) == (0, 256)
    assert first.tokens == again.tokens


@pytest.mark.parametrize("own", [1, 3, 37, 130])
@pytest.mark.parametrize("shared", [128, 256, 384])
def test_a_hit_and_a_miss_give_identical_logits(parts: Parts, shared: int, own: int) -> None:
    """Everything is restored: windows and ratio-4 rings go on in the middle (own is no multiple of
    8), the new tokens attend compressed, indexer and window rows of before. In between, another
    sequence has used the first one's slot and rings."""
    engine = Engine(*parts, EngineConfig(num_pages=32, max_num_seqs=1, check="step"))
    serve(engine, {0: [Request(0, (*PREFIX[:shared], 5), SIX)]})
    serve(engine, {0: [Request(1, prompt(1, 200), SIX)]})
    request = Request(2, (*PREFIX[:shared], *prompt(2, own)), TOLD)
    hit, miss = serve(engine, {0: [request]})[2], alone(parts, request)
    assert (hit.cached, miss.cached) == (shared, 0)
    assert (hit.tokens, hit.logprobs) == (miss.tokens, miss.logprobs)


def test_a_shared_beginning_shorter_than_a_block_is_no_hit(parts: Parts) -> None:
    engine = Engine(*parts, EngineConfig(num_pages=32))
    serve(engine, {0: [Request(0, (*PREFIX[:127], 5), SIX)]})
    request = Request(1, (*PREFIX[:127], 6, 7, 8), TOLD)
    assert serve(engine, {0: [request]})[1].cached == 0


def test_beginnings_are_shared_among_requests_with_the_same_salt(parts: Parts) -> None:
    engine = Engine(*parts, EngineConfig(num_pages=32))
    tokens, told = tuple(PREFIX[:300]), []
    for number, salt in enumerate(["", "a", "a", "b", "", "\udc80"]):
        params = replace(SIX, cache_salt=salt)
        told.append(serve(engine, {0: [Request(number, tokens, params)]})[number])
    assert [got.cached for got in told] == [0, 0, 256, 0, 256, 0]
    assert all(got.tokens == told[0].tokens for got in told)


def test_under_pressure_the_least_recently_used_prefix_goes(parts: Parts) -> None:
    """Eight pages: A, B and C keep two each; A is used again, so D evicts B. Whoever comes back
    gets the same logits, by a hit or by computing again."""
    engine = Watched(*parts, EngineConfig(num_pages=8, max_num_seqs=1, check="step"))
    names = {name: prompt(seed, 258) for seed, name in enumerate("ABCD", start=3)}

    def ask(name: str) -> Got:
        return serve(engine, {0: [Request(0, names[name], TOLD)]})[0]

    first = {name: ask(name) for name in "ABC"}
    assert ask("A").cached == 256 and not engine.seen["evicted blocks"]
    ask("D")
    for name, cached in (("A", 256), ("C", 256), ("B", 0)):
        again = ask(name)
        assert again.cached == cached, name
        assert (again.tokens, again.logprobs) == (first[name].tokens, first[name].logprobs)
    assert engine.seen["evicted blocks"]


# ---- faults: what the other requests get


def test_a_request_larger_than_the_cache_is_refused_with_figures(parts: Parts) -> None:
    """Its neighbours, before and after it in the line, get what they get alone."""
    engine = Engine(*parts, EngineConfig(num_pages=2, check="step"))
    sizes = {0: 100, 1: 300, 2: 90}
    requests = [Request(i, tuple(PREFIX[i : i + n]), SIX) for i, n in sizes.items()]
    got = serve(engine, {0: requests})
    assert got[1] == Got(error="306 tokens with the completion, and the cache holds 256")
    for request in (requests[0], requests[2]):
        assert got[request.id].tokens == alone(parts, request).tokens


def test_an_exhausted_pool_preempts_and_every_request_gets_its_tokens(parts: Parts) -> None:
    """Eight requests that grow to two pages each, in a pool of four pages: together they would need
    four times as many. All come to their end, with the tokens that each gets alone."""
    options = EngineConfig(max_num_seqs=8, num_pages=4, prefix_caching=False, check="step")
    engine = Watched(*parts, options)
    params = SamplingParams(max_tokens=20, ignore_eos=True)
    requests = [Request(i, prompt(i, 120), params) for i in range(8)]
    got = serve(engine, {0: requests})
    assert engine.scheduler.num_preemptions >= 2
    for request in requests:
        assert got[request.id].reasons == {0: "length"}
        assert got[request.id].tokens == alone(parts, request).tokens
    assert engine.pages.num_free == 4 and engine.slots.num_free == 8


def test_an_op_that_raises_fails_its_step_and_no_other(parts: Parts) -> None:
    """The experts break once, while two of three requests are in the step."""
    config, weights, ops, device = parts
    broken = []

    def moe(*args, **kwargs):
        if broken:
            broken.pop()
            raise RuntimeError("planted")
        return ops.moe.call(*args, **kwargs)

    table = replace(ops, moe=Backend("moe", "breaks", moe, ops.moe.prepare))
    engine = Engine(config, weights, table, device, EngineConfig(num_pages=32, check="step"))
    params = SamplingParams(max_tokens=8, ignore_eos=True)
    requests = [Request(i, tuple(PREFIX[i : i + 40]), params) for i in range(3)]
    engine.submit(requests[0])
    engine.submit(requests[1])
    engine.step()
    broken.append(True)
    failed = [e for e in engine.step() if isinstance(e, Failed)]
    assert [(e.request_id, e.error) for e in failed] == [
        (0, "RuntimeError: planted"),
        (1, "RuntimeError: planted"),
    ]
    got = serve(engine, {0: [requests[2]]})
    assert got[2].tokens == alone(parts, requests[2]).tokens


# ---- the audit


@pytest.mark.parametrize(("check", "found_after"), [("off", None), ("idle", 6), ("step", 1)])
def test_a_leak_is_found_when_the_engine_is_asked_to_look(
    parts: Parts, check: str, found_after: int | None
) -> None:
    """A page is taken behind the engine's back before the first step of a request of six."""
    engine = Watched(*parts, EngineConfig(num_pages=8, check=check))
    assert engine.pages.allocate(1)
    engine.submit(Request(0, prompt(0, 9), SIX))
    if found_after is None:
        while engine.busy:
            engine.step()
    else:
        with pytest.raises(AssertionError, match="1 references, 0 owners"):
            while engine.busy:
                engine.step()
        assert engine.seen["steps"] == found_after
