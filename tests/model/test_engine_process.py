"""The engine in a process of its own: the same tokens, and nothing hangs or is left behind when a
client goes away, a client never reads, or a process dies."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from isobath import LLM, AsyncLLM, CheckpointError, Completion, EngineDied, RequestError
from isobath.config import EngineConfig
from isobath.engine.llm import BUNDLED
from isobath.engine.process import EngineProcess, EngineSpec
from isobath.engine.sampling import SamplingParams
from tests.support.checkpoints import random_checkpoint

VOCAB = 151
OPTIONS = EngineConfig(max_batched_tokens=64, max_num_seqs=2, num_pages=800, check="step")
ENDLESS = SamplingParams(max_tokens=100_000, ignore_eos=True)
"""Minutes of work at any speed a CPU can reach: whoever waits for its end runs into LIMIT_S."""
SHORT = SamplingParams(max_tokens=6, ignore_eos=True)
LIMIT_S = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose context holds ENDLESS, with a tokenizer."""
    path: Path = tmp_path_factory.mktemp("process")
    random_checkpoint(
        path,
        seed=6,
        compress_ratios=[0, 4, 128],
        num_hash_layers=1,
        max_position_embeddings=1 << 17,
    )
    shutil.copy(BUNDLED / "tokenizer.json", path)
    return path


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[AsyncLLM]:
    """Two slots, and pages that are counted after every step: a leak would end the process."""
    llm = AsyncLLM(folder, max_batched_tokens=64, engine=OPTIONS)
    yield llm
    llm.process.close()


def prompt(seed: int, size: int) -> list[int]:
    return [(17 * seed + 7 * i + 3) % VOCAB for i in range(size)]


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, LIMIT_S))


async def complete(llm: AsyncLLM, ids: list[int], params: SamplingParams) -> list[Completion]:
    """All completions, each checked against the pieces it came in."""
    text, tokens, done = [""] * params.n, [[] for _ in range(params.n)], {}
    async for piece in llm.generate(ids, params):
        assert piece.index not in done and (piece.finish_reason is None) == (not piece.completion)
        text[piece.index] += piece.text
        tokens[piece.index] += piece.token_ids
        if piece.completion:
            done[piece.index] = piece.completion
    for index, completion in done.items():
        assert (completion.text, completion.token_ids) == (text[index], tokens[index])
    return [done[index] for index in range(params.n)]


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; run() sets the limit."""
    while not condition():
        await asyncio.sleep(0.02)


def test_concurrent_generations_equal_those_of_llm(folder: Path, llm: AsyncLLM) -> None:
    cases = [
        (prompt(0, 5), SamplingParams(max_tokens=12, ignore_eos=True)),
        (prompt(1, 150), SamplingParams(max_tokens=9, temperature=1.0, seed=3, n=3)),
        (prompt(2, 40), SamplingParams(max_tokens=7, logprobs=2, prompt_logprobs=1)),
        (prompt(3, 130), SamplingParams(max_tokens=20, ignore_eos=True)),
    ]

    async def main() -> list[list[Completion]]:
        return await asyncio.gather(*(complete(llm, *case) for case in cases))

    here = LLM(folder, max_batched_tokens=64, engine=OPTIONS)
    assert run(main()) == [here.generate([ids], params) for ids, params in cases]


def test_a_stop_text_ends_a_generation_and_is_not_part_of_it(llm: AsyncLLM) -> None:
    async def main() -> tuple[Completion, Completion]:
        params = SamplingParams(max_tokens=24, ignore_eos=True)
        [whole] = await complete(llm, prompt(0, 5), params)
        stop = whole.text[len(whole.text) // 2 :][:3]
        [cut] = await complete(llm, prompt(0, 5), SamplingParams(**fields(ENDLESS, stop=(stop,))))
        assert cut.text == whole.text[: whole.text.find(stop)]
        return whole, cut

    whole, cut = run(main())
    assert cut.finish_reason == "stop" and len(cut.token_ids) < len(whole.token_ids)


def test_a_completion_that_a_stop_text_ended_says_what_was_cached(
    folder: Path, llm: AsyncLLM
) -> None:
    here = LLM(folder, max_batched_tokens=64, engine=OPTIONS)
    ids = prompt(7, 150)
    [whole] = here.generate([ids], SamplingParams(max_tokens=24, ignore_eos=True))
    assert whole.cached_tokens == 0
    stop = whole.text[len(whole.text) // 2 :][:3]
    params = SamplingParams(**fields(ENDLESS, stop=(stop,)))

    async def twice() -> list[Completion]:
        return [(await complete(llm, ids, params))[0] for _ in range(2)]

    [again] = here.generate([ids], params)
    first, second = run(twice())
    assert [again.cached_tokens, first.cached_tokens, second.cached_tokens] == [128, 0, 128]
    assert {c.finish_reason for c in (again, first, second)} == {"stop"}
    assert first.text == second.text == again.text == whole.text[: whole.text.find(stop)]


def fields(params: SamplingParams, **changed: Any) -> dict[str, Any]:
    return {name: getattr(params, name) for name in params.__slots__} | changed


def test_a_consumer_that_leaves_gives_back_what_its_request_held(llm: AsyncLLM) -> None:
    """Both slots are taken by endless requests; the third can only run once they are ended, by
    break, aclose and cancellation in turn."""

    async def leave_by_break() -> None:
        async for _ in llm.generate(prompt(0, 9), ENDLESS):
            break

    async def leave_by_aclose() -> None:
        pieces = llm.generate(prompt(1, 9), ENDLESS)
        await anext(pieces)
        await pieces.aclose()

    async def leave_by_cancellation() -> None:
        begun = asyncio.Event()

        async def consume() -> None:
            async for _ in llm.generate(prompt(2, 9), ENDLESS):
                begun.set()

        task = asyncio.create_task(consume())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main() -> None:
        for leave in (leave_by_break, leave_by_aclose, leave_by_cancellation):
            await asyncio.gather(leave(), leave())
            [done] = await complete(llm, prompt(5, 300), SHORT)
            assert len(done.token_ids) == 6

    run(main())


def test_a_client_that_never_reads_does_not_stop_others(llm: AsyncLLM) -> None:
    async def main() -> None:
        idle = llm.generate(prompt(0, 9), ENDLESS)
        await anext(idle)
        results = await asyncio.gather(*(complete(llm, prompt(i, 20), SHORT) for i in range(5)))
        assert [len(c.token_ids) for [c] in results] == [6] * 5
        await anext(idle)  # it has been going on all the time
        await idle.aclose()

    run(main())


def test_a_request_that_breaks_the_sampler_fails_alone(llm: AsyncLLM) -> None:
    async def main() -> None:
        beyond = SamplingParams(**fields(SHORT, logit_bias={1 << 70: 1.0}))
        results = await asyncio.gather(
            complete(llm, prompt(0, 9), SHORT),
            complete(llm, prompt(1, 9), beyond),
            return_exceptions=True,
        )
        assert len(results[0][0].token_ids) == 6
        assert isinstance(results[1], RequestError) and "Overflow" in str(results[1])

    run(main())


@pytest.mark.parametrize("ids", [[], [VOCAB], [1] * (1 << 17)])
def test_a_prompt_that_cannot_be_served_is_refused_as_by_llm(llm: AsyncLLM, ids: list[int]) -> None:
    with pytest.raises(RequestError):
        run(complete(llm, ids, SHORT))


@pytest.mark.parametrize(
    "pieces", [16, *(pytest.param(n, marks=pytest.mark.nightly) for n in (35, 38))]
)
def test_killing_the_process_fails_every_open_request_and_later_ones(
    folder: Path, pieces: int
) -> None:
    """Killed in another step each time."""
    llm = AsyncLLM(folder, max_batched_tokens=64, engine=OPTIONS)

    async def main() -> None:
        begun = []

        async def consume(i: int) -> None:
            async for _ in llm.generate(prompt(i, 9), ENDLESS):
                begun.append(i)

        # At most two run; the third waits for a slot.
        tasks = [asyncio.create_task(consume(i)) for i in range(3)]
        await reached(lambda: len(begun) >= pieces)
        killed = time.monotonic()
        os.kill(llm.process.pid, signal.SIGKILL)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - killed < 5
        assert all(isinstance(e, EngineDied) and "exit code -9" in str(e) for e in errors), errors
        assert not llm.alive
        with pytest.raises(EngineDied):
            await complete(llm, prompt(0, 9), SHORT)

    run(main())
    llm.process.close()
    assert not exists(llm.process.pid)


def test_sigterm_to_the_whole_service_leaves_the_engine_to_its_parent(llm: AsyncLLM) -> None:
    """As systemd sends it: to every process. Only the parent may pass it on."""
    sent = f"import os, signal; os.kill({llm.process.pid}, signal.SIGTERM)"
    subprocess.run([sys.executable, "-c", sent], check=True)
    [done] = run(complete(llm, prompt(0, 9), SHORT))
    assert len(done.token_ids) == 6 and llm.alive


def exists(pid: int) -> bool:
    """Whether there is such a process, be it one that nobody has waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def drained(llm: AsyncLLM, task: Awaitable[list[Completion]]) -> None:
    await llm.close(drain=True, timeout=LIMIT_S)
    [done] = await task
    assert len(done.token_ids) == 100


async def cut_short(llm: AsyncLLM, task: Awaitable[list[Completion]]) -> None:
    await llm.close()
    with pytest.raises(EngineDied, match="it was closed"):
        await task


@pytest.mark.parametrize("end", [drained, cut_short])
def test_close_leaves_no_process_and_no_open_request(folder: Path, end: Callable[..., Any]) -> None:
    async def main() -> int:
        async with AsyncLLM(folder, max_batched_tokens=64, engine=OPTIONS) as llm:
            hundred = SamplingParams(max_tokens=100, ignore_eos=True)
            params = ENDLESS if end is cut_short else hundred
            task = asyncio.create_task(complete(llm, prompt(0, 9), params))
            await asyncio.sleep(0.1)  # the task submits as soon as it first runs
            await end(llm, task)
            with pytest.raises(EngineDied):
                await complete(llm, prompt(0, 9), SHORT)
            return llm.process.pid

    assert not exists(run(main()))


def test_close_ends_a_process_that_does_not_react(folder: Path) -> None:
    """Stopped while it loads: it neither reads its pipe nor comes to an end by itself."""
    process = EngineProcess(EngineSpec(str(folder)), deliver=lambda events: None)
    os.kill(process.pid, signal.SIGSTOP)
    process.close(timeout=0.1)
    assert not exists(process.pid)
    with pytest.raises(EngineDied):
        process.ready()


def test_the_process_ends_with_a_parent_that_did_not_close_it(folder: Path) -> None:
    """multiprocessing sends SIGTERM to what is left at exit, and waits."""
    script = f"""
from isobath import AsyncLLM
if __name__ == "__main__":
    print(AsyncLLM({str(folder)!r}).process.pid, flush=True)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert not exists(int(done.stdout))


@pytest.mark.parametrize("then", ["break", "pass"], ids=["idle", "busy"])
def test_the_process_ends_when_its_parent_is_killed(folder: Path, then: str) -> None:
    """Both hold the script's stdout open; its end is the end of both."""
    script = f"""
import asyncio
from isobath import AsyncLLM, SamplingParams

async def main():
    llm = AsyncLLM({str(folder)!r})
    async for _ in llm.generate([1, 2], SamplingParams(max_tokens=99999, ignore_eos=True)):
        print(llm.process.pid, flush=True)
        {then}
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert exists(int(parent.stdout.readline()))
        time.sleep(0.3)  # let the abort that follows break arrive
        parent.kill()
        began = time.monotonic()
        parent.communicate(timeout=LIMIT_S)
    assert time.monotonic() - began < 5


def test_a_checkpoint_that_is_not_there_is_an_error_of_the_parent(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        AsyncLLM(tmp_path / "nowhere")
