"""The engine under random traffic: every request gets what it would get alone, nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isobath.config import EngineConfig
from isobath.engine.engine import Engine
from isobath.engine.request import Failed, Finished, Request, Token
from isobath.engine.sampling import SamplingParams
from isobath.model.load import load
from isobath.numerics import OCP
from isobath.ops.table import bind
from tests.support.checkpoints import random_checkpoint

CPU = torch.device("cpu")
VOCAB = 151


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory):
    """A small model with every layer kind: (config, weights, ops, device)."""
    folder: Path = tmp_path_factory.mktemp("engine")
    random_checkpoint(
        folder, seed=6, num_hidden_layers=3, compress_ratios=[0, 4, 128], num_hash_layers=1
    )
    ops = bind("torch")
    config, weights = load(folder, numerics="native", dialect=OCP, device=CPU, ops=ops)
    return config, weights, ops, CPU


@dataclass
class Got:
    """What one request was told."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    cached: int = 0
    error: str = ""


def run(engine: Engine, arrivals: dict[int, list[Request]], aborts: dict[int, list[int]]):
    """Feed requests and aborts by step number until nothing is left."""
    got: dict[int, Got] = {}
    step = 0
    while engine.busy or step <= max([*arrivals, *aborts], default=0):
        for request in arrivals.get(step, ()):
            got[request.id] = Got()
            engine.submit(request)
        for request_id in aborts.get(step, ()):
            engine.abort(request_id)
        for event in engine.step():
            if isinstance(event, Token):
                got[event.request_id].tokens.setdefault(event.index, []).append(event.token_id)
            elif isinstance(event, Finished):
                got[event.request_id].reasons[event.index] = event.reason
                got[event.request_id].cached = event.cached_tokens
            elif isinstance(event, Failed):
                got[event.request_id].error = event.error
        step += 1
        assert step < 5000, "the engine does not come to an end"
    return got


def alone(parts, request: Request) -> Got:
    """The request in an engine of its own, without a prefix cache, in one chunk."""
    options = EngineConfig(
        max_batched_tokens=1024, max_num_seqs=8, num_pages=64, prefix_caching=False
    )
    return run(Engine(*parts, options), {0: [request]}, {})[request.id]


PREFIX = [(7 * i + 3) % VOCAB for i in range(400)]


@st.composite
def traffic(draw):
    """Arrivals and aborts by step. Prompts share beginnings of PREFIX."""
    arrivals: dict[int, list[Request]] = {}
    aborts: dict[int, list[int]] = {}
    for i in range(draw(st.integers(1, 6))):
        shared = PREFIX[: draw(st.sampled_from([0, 5, 127, 128, 129, 256, 300]))]
        own = draw(st.lists(st.integers(2, VOCAB - 1), min_size=1, max_size=40))
        params = SamplingParams(
            max_tokens=draw(st.integers(1, 12)),
            temperature=draw(st.sampled_from([0.0, 0.0, 1.0])),
            seed=i,
            ignore_eos=True,
            n=draw(st.sampled_from([1, 1, 1, 2])),
        )
        at = draw(st.integers(0, 8))
        arrivals.setdefault(at, []).append(Request(i, tuple(shared + own), params))
        if draw(st.integers(0, 4)) == 0:
            aborts.setdefault(at + draw(st.integers(0, 6)), []).append(i)
    return arrivals, aborts


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    traffic=traffic(),
    budget=st.sampled_from([4, 9, 64, 130, 512]),
    pages=st.sampled_from([4, 5, 8, 40]),
    seqs=st.integers(1, 4),
)
def test_every_request_gets_what_it_would_get_alone(parts, traffic, budget, pages, seqs) -> None:
    arrivals, aborts = traffic
    options = EngineConfig(
        max_batched_tokens=budget,
        max_num_seqs=seqs,
        num_pages=pages,
        num_snapshots=2,
        check=True,
    )
    engine = Engine(*parts, options)
    got = run(engine, arrivals, aborts)
    aborted = {i for ids in aborts.values() for i in ids}
    for request in (r for requests in arrivals.values() for r in requests):
        mine, want = got[request.id], alone(parts, request)
        assert not mine.error, mine.error
        for index, tokens in mine.tokens.items():
            expected = want.tokens[index]
            if request.id in aborted:
                expected = expected[: len(tokens)]
            assert tokens == expected, (request.id, index)
        if request.id not in aborted:
            assert mine.reasons == want.reasons
    assert engine.pages.num_free + len(engine.prefixes) == pages
    engine.prefixes.evict(pages)
    assert engine.pages.num_free == pages and engine.slots.num_free == seqs


def test_no_step_exceeds_its_budget(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(*parts, EngineConfig(max_batched_tokens=16, max_num_seqs=4, num_pages=32))
    sizes = []
    build = engine._builder.build
    monkeypatch.setattr(
        engine._builder,
        "build",
        lambda chunks: sizes.append(sum(len(c.token_ids) for c in chunks)) or build(chunks),
    )
    params = SamplingParams(max_tokens=5, ignore_eos=True)
    run(engine, {0: [Request(i, tuple(range(2, 60 + i)), params) for i in range(6)]}, {})
    assert max(sizes) <= 16 and sum(sizes) >= 6 * 58


def test_a_second_identical_prompt_starts_from_the_cache(parts) -> None:
    engine = Engine(*parts, EngineConfig(num_pages=32))
    params = SamplingParams(max_tokens=6, ignore_eos=True)
    first = run(engine, {0: [Request(0, tuple(PREFIX[:300]), params)]}, {})[0]
    again = run(engine, {0: [Request(1, tuple(PREFIX[:300]), params)]}, {})[1]
    assert (first.cached, again.cached) == (0, 256)
    assert first.tokens == again.tokens


def test_a_request_larger_than_the_cache_is_refused_with_figures(parts) -> None:
    engine = Engine(*parts, EngineConfig(num_pages=2))
    params = SamplingParams(max_tokens=20)
    got = run(engine, {0: [Request(0, tuple(PREFIX[:300]), params)]}, {})
    assert got[0].error == "320 tokens with the completion, and the cache holds 256"


def test_an_op_that_raises_fails_its_step_and_no_other(parts) -> None:
    """The router breaks once, while two of three requests are in the step."""
    from dataclasses import replace

    from isobath.ops.contract import Backend

    config, weights, ops, device = parts
    broken = []

    def router(*args, **kwargs):
        if broken:
            broken.pop()
            raise RuntimeError("planted")
        return ops.router.call(*args, **kwargs)

    table = replace(ops, router=Backend("router", "breaks", router, ops.router.prepare))
    engine = Engine(config, weights, table, device, EngineConfig(num_pages=32, check=True))
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
    got = run(engine, {0: [requests[2]]}, {})
    assert got[2].tokens == alone(parts, requests[2]).tokens
