"""Two engine processes behind one door: who gets what, and what happens when one is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from isobath.config import EngineConfig
from isobath.engine.capacity import CPU_SHARE
from isobath.engine.llm import BUNDLED, LLM
from isobath.engine.output import Completion
from isobath.engine.process import EngineSpec
from isobath.engine.sampling import SamplingParams
from isobath.errors import CheckpointError, ConfigError, EngineDied, RequestError
from isobath.server.backend import Route
from isobath.server.replicas import Replicas, specs
from isobath.target import detect
from tests.support.checkpoints import random_checkpoint

VOCAB = 151
OPTIONS = EngineConfig(max_batched_tokens=256, max_num_seqs=8, num_pages=200, check="idle")
LONG = SamplingParams(max_tokens=150, ignore_eos=True)
"""Long enough to be interrupted."""
SHORT = SamplingParams(max_tokens=4, ignore_eos=True)
LIMIT_S = 120


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    """A small model, with a tokenizer."""
    folder: Path = tmp_path_factory.mktemp("replicas")
    random_checkpoint(
        folder, seed=6, num_hidden_layers=3, compress_ratios=[0, 4, 128], num_hash_layers=1
    )
    shutil.copy(BUNDLED / "tokenizer.json", folder)
    return EngineSpec(str(folder), max_batched_tokens=256, engine=OPTIONS, device="cpu")


@pytest.fixture(scope="module")
def pool(spec: EngineSpec) -> Iterator[Replicas]:
    pool = Replicas(specs(spec, 2))
    yield pool
    pids = pool.pids().values()
    pool.end()
    assert not any(exists(pid) for pid in pids)


def prompt(seed: int, size: int) -> list[int]:
    """Beginnings differ from the first token on."""
    return [(17 * seed + 7 * i + 3) % VOCAB for i in range(size)]


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, LIMIT_S))


async def complete(
    pool: Replicas, ids: list[int], params: SamplingParams = SHORT, session: str | None = None
) -> tuple[int, Completion]:
    """(which engine took it, if nothing else comes or goes meanwhile; what came of it)."""
    before = pool.loads
    done: list[Completion] = []
    taken: list[int] = []
    async for piece in pool.generate(ids, params, Route(session) if session else None):
        taken = taken or [i for i, load in pool.loads.items() if load > before.get(i, 0)]
        if piece.completion:
            done.append(piece.completion)
    return taken[0], done[0]


async def reached(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_equal_beginnings_go_to_one_replica_and_are_cached_there(pool: Replicas) -> None:
    async def main() -> None:
        for seed in range(3):
            ids = prompt(100 + seed, 140)
            first, cold = await complete(pool, ids)
            for end in ([1], ids[:60]):
                again, warm = await complete(pool, ids + end)
                assert again == first
                assert (cold.cached_tokens, warm.cached_tokens) == (0, 128)

    run(main())


def test_every_replica_forgets_its_cache(pool: Replicas) -> None:
    async def main() -> None:
        prompts = [prompt(200 + seed, 140) for seed in range(4)]  # of 4 snapshots each

        async def cached() -> list[int]:
            return [(await complete(pool, ids))[1].cached_tokens for ids in prompts]

        where = {(await complete(pool, ids))[0] for ids in prompts}
        assert where == {0, 1} and await cached() == [128] * 4
        await pool.reset_prefix_cache()
        assert await cached() == [0] * 4

    run(main())


def test_a_session_stays_with_its_replica(pool: Replicas) -> None:
    async def main() -> None:
        for session in ("alice", "bob"):
            where = [(await complete(pool, prompt(i, 9), session=session))[0] for i in range(4)]
            assert len(set(where)) == 1
        plain = [(await complete(pool, prompt(i, 9)))[0] for i in range(4)]
        assert Counter(plain) == {0: 2, 1: 2}  # without one they take turns

    run(main())


def test_load_spreads_and_is_given_back_by_whoever_leaves(pool: Replicas) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(complete(pool, prompt(i, 5), LONG)) for i in range(6)]
        await reached(lambda: sum(pool.loads.values()) == 6)
        assert pool.loads == {0: 3, 1: 3}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.loads == {0: 0, 1: 0}
        await reached(lambda: all(s.running + s.waiting == 0 for s in pool.statistics()))
        assert [s.engine for s in pool.statistics()] == [0, 1]

    run(main())


def test_results_are_those_of_a_single_engine(spec: EngineSpec, pool: Replicas) -> None:
    drawn = SamplingParams(max_tokens=12, temperature=1.0, seed=3, logprobs=2)
    cases = [(prompt(i, 20 + 60 * i), drawn if i % 2 else SHORT) for i in range(4)]

    async def main() -> list[Completion]:
        before = {s.engine: s.prompt_tokens for s in pool.statistics()}
        done = await asyncio.gather(*(complete(pool, *case) for case in cases))
        await reached(lambda: all(s.prompt_tokens > before[s.engine] for s in pool.statistics()))
        return [completion for _, completion in done]

    here = LLM(spec.path, max_batched_tokens=256, engine=OPTIONS, device="cpu")
    alone = [here.generate([ids], params)[0] for ids, params in cases]
    assert [answer(c) for c in run(main())] == [answer(c) for c in alone]


def answer(completion: Completion) -> tuple[object, ...]:
    """What must not depend on where and when it was computed."""
    return (completion.token_ids, completion.text, completion.logprobs, completion.finish_reason)


@pytest.mark.parametrize("ids", [[], [1 << 70], [-1], [1] * 100_000])
def test_a_prompt_that_cannot_be_served_is_refused_as_by_one_engine(
    pool: Replicas, ids: list[int]
) -> None:
    with pytest.raises(RequestError):
        run(complete(pool, ids))
    assert pool.loads == {0: 0, 1: 0}


def test_a_killed_replica_fails_its_requests_alone_and_is_replaced(pool: Replicas) -> None:
    async def main() -> None:
        pids = pool.pids()
        ids = prompt(100, 9)
        tasks = [asyncio.create_task(complete(pool, prompt(i, 5), LONG)) for i in range(6)]
        await reached(lambda: all(s.running == 3 for s in pool.statistics()))
        os.kill(pids[0], signal.SIGKILL)
        await reached(lambda: list(pool.loads) == [1])
        assert pool.alive and [s.engine for s in pool.statistics()] == [1]
        assert (await complete(pool, ids))[0] == 1  # while nobody else is there
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert Counter(type(end) for end in ends) == {EngineDied: 3, tuple: 3}
        assert all(len(end[1].token_ids) == 150 for end in ends if isinstance(end, tuple))
        await reached(lambda: pool.loads == {0: 0, 1: 0})
        assert pool.pids()[0] not in (pids[0], pids[1]) and pool.pids()[1] == pids[1]
        assert not exists(pids[0])
        assert {(await complete(pool, prompt(i, 5)))[0] for i in range(2)} == {0, 1}

    run(main())


def test_without_any_replica_the_pool_says_so_and_close_does_not_wait_for_a_new_one(
    spec: EngineSpec,
) -> None:
    pool = Replicas(specs(spec, 1))
    [first] = [e.llm for e in pool._engines]

    async def main() -> None:
        os.kill(first.process.pid, signal.SIGKILL)
        await reached(lambda: not pool.alive)
        with pytest.raises(EngineDied, match="no replica is left"):
            await complete(pool, [1, 2])
        assert pool.statistics() == []
        await reached(lambda: pool._engines[0].llm is not first)  # which is loading

    run(main())
    began = time.monotonic()
    pool.end()
    assert time.monotonic() - began < 10
    assert not exists(pool._engines[0].llm.process.pid) and not pool.alive


def test_a_checkpoint_that_is_not_there_is_an_error_of_the_constructor(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        Replicas(specs(EngineSpec(str(tmp_path / "nowhere"), device="cpu"), 1))


def test_replicas_on_a_cpu_share_its_threads_and_the_cache_of_one_engine() -> None:
    base = EngineSpec(None, device="cpu", banner=((20, "hello"),))
    made = specs(base, 2)
    assert [(s.index, s.device, len(s.banner)) for s in made] == [(0, "cpu", 1), (1, "cpu", 0)]
    assert {s.threads for s in made} == {max(1, torch.get_num_threads() // 2)}
    share = int(CPU_SHARE * detect("cpu").memory_bytes) // 2
    assert {s.engine.cache_bytes for s in made if s.engine} == {share}
    given = replace(base, engine=EngineConfig(cache_bytes=1 << 20), threads=3)
    assert {s.engine.cache_bytes for s in specs(given, 64) if s.engine} == {1 << 20}
    assert {s.threads for s in specs(given, 64)} == {3}
    assert {s.threads for s in specs(base, 10_000)} == {1}


def test_more_replicas_than_gpus_are_refused() -> None:
    with pytest.raises(ConfigError, match="one GPU each"):
        specs(EngineSpec(None, device="gpu"), 10_000)
