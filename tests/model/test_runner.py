"""What of the captured decode step a CPU can show: the region, its buckets, its start-up check.

Capture and replay themselves need a GPU. Everything around them is plain code: which bucket a step
takes, that padding to it changes no bit, that running a step twice is running it once, and that the
comparison of a replay with an eager run notices what it is there for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isobath.cache.pool import PAGE_TOKENS
from isobath.cache.view import read_rows
from isobath.config import EngineConfig
from isobath.engine.engine import Engine
from isobath.engine.graphs import DecodeGraphs, buckets, check_replay, contexts
from isobath.engine.metadata import Shape
from isobath.engine.request import Request, Token
from isobath.engine.runner import StepOutput
from isobath.engine.sampling import SamplingParams
from isobath.engine.selfcheck import decode_step, empty, fill, other_step
from isobath.errors import CaptureUnsafe
from isobath.model.batch import Chunk
from isobath.model.load import load
from isobath.numerics import FNUZ
from isobath.ops.capture import capture_safe
from isobath.ops.table import bind
from tests.support.checkpoints import random_checkpoint

CPU = torch.device("cpu")
SEQS = 12


def engine_of(folder: Path, *, static: bool = True) -> Engine:
    ops = bind("torch")
    config, weights = load(folder, numerics="native", dialect=FNUZ, device=CPU, ops=ops)
    options = EngineConfig(max_num_seqs=SEQS, num_pages=40, static_metadata=static)
    return Engine(config, weights, ops, CPU, options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runner")
    random_checkpoint(path, seed=12)
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return engine_of(folder)


def graphs_of(engine: Engine, *, static: bool = True) -> DecodeGraphs:
    runner = engine.runner
    return DecodeGraphs(
        engine.config, runner.metadata, engine.pool, runner.forward, CPU, static=static
    )


@pytest.mark.parametrize("most", [1, 3, 8, 50, 64, 256, 1000, 1024])
def test_buckets_hold_every_number_of_sequences_with_little_padding(most: int) -> None:
    sizes = buckets(most)
    assert list(sizes) == sorted(set(sizes)) and sizes[-1] == most
    for count in range(17, most + 1):
        bucket = min(s for s in sizes if s >= count)
        assert bucket - count <= bucket / 3, count


@pytest.mark.parametrize("topk", [16, 31, 32, 512, 2048])
def test_short_context_chooses_nothing_and_offers_no_more_than_is_selected(
    engine: Engine, topk: int
) -> None:
    """Beyond one page; within one the page itself holds more."""
    config = replace(engine.config, index_topk=topk)
    short, _ = contexts(config, 1 << 20)
    assert short // 4 <= topk
    if short >= PAGE_TOKENS:
        assert -(-short // PAGE_TOKENS) * PAGE_TOKENS // 4 <= topk
    assert short > 4 * topk - PAGE_TOKENS


def test_step_takes_the_smallest_bucket_that_holds_it(engine: Engine) -> None:
    """index_topk is 16: up to 67 tokens nothing is chosen."""
    graphs = graphs_of(engine)
    longest = engine.runner.metadata.max_context
    assert graphs.lanes == (1, 2, 4, 8, 12)
    assert graphs.contexts == contexts(engine.config, longest) == (67, longest)
    for count, most, want in ((1, 67, (1, 67)), (3, 68, (4, longest)), (9, 2, (12, 67))):
        chunks = decode_step(engine.pool, count, most, engine.config.vocab_size, seed=count)
        assert max(c.start for c in chunks) == most - 1
        shape = graphs.shape_for(chunks)
        assert (shape.lanes, shape.context) == want and set(shape.due) == {shape.lanes}
    assert engine.config.index_topk == 16


@pytest.mark.parametrize("static", [True, False])
@torch.inference_mode()
def test_region_in_a_bucket_gives_the_bits_of_the_exact_step(engine: Engine, static: bool) -> None:
    """With the device's metadata and with rows copied from the host's, short and long."""
    graphs, runner = graphs_of(engine, static=static), engine.runner
    fill(engine.pool, seed=1)
    for seed, (count, context) in enumerate(((1, 60), (3, 67), (7, 300), (12, 900))):
        chunks = decode_step(engine.pool, count, context, engine.config.vocab_size, seed=seed)
        exact = runner.run(chunks)
        shape = graphs.shape_for(chunks)
        if static:
            runner.metadata.fill(chunks, shape)
        else:
            runner.metadata.copy(runner.builder.build(chunks), shape)
        graphs.region(shape)
        with capture_safe("region"):
            graphs.region(shape)
        assert torch.equal(graphs.logits[:count], exact.logits)
        assert graphs.best[:count].tolist() == exact.greedy
        assert exact.logits.isfinite().all()


@torch.inference_mode()
def test_step_that_runs_twice_is_the_step_that_ran_once(engine: Engine) -> None:
    fill(engine.pool, seed=2)
    for seed in range(4):
        chunks = decode_step(engine.pool, SEQS, 700, engine.config.vocab_size, seed=seed)
        assert torch.equal(engine.runner.run(chunks).logits, engine.runner.run(chunks).logits)


@torch.inference_mode()
def test_step_between_two_runs_of_a_step_changes_neither(engine: Engine) -> None:
    """As the start-up check does it, in the largest bucket: every slot is in use."""
    graphs, metadata = graphs_of(engine), engine.runner.metadata
    fill(engine.pool, seed=4)
    chunks = decode_step(engine.pool, SEQS, 700, engine.config.vocab_size, seed=4)
    shape = graphs.shape_for(chunks)

    def logits(step: list[Chunk]) -> torch.Tensor:
        metadata.fill(step, shape)
        graphs.region(shape)
        return graphs.logits[: len(step)].clone()

    before, between, after = logits(chunks), logits(other_step()), logits(chunks)
    assert torch.equal(before, after)
    assert between.isfinite().all() and not torch.equal(between[0], before[0])


def test_check_steps_write_to_places_of_their_own(engine: Engine) -> None:
    for seed in range(20):
        chunks = decode_step(engine.pool, SEQS, 2000, engine.config.vocab_size, seed=seed)
        assert len({c.slot for c in chunks}) == len({c.pages[-1] for c in chunks}) == SEQS
        assert all(len(c.pages) == c.start // 128 + 1 and 0 not in c.pages for c in chunks)
        assert any((c.start + 1) % 128 == 0 for c in chunks)


def test_check_leaves_a_pool_in_which_nothing_is_written(engine: Engine) -> None:
    empty(engine.pool)
    fill(engine.pool, seed=3)
    layer = next(x for x in engine.pool.layers if x.ratio == 4)
    assert layer.compressor is not None and layer.indexer is not None
    rows = torch.arange(engine.pool.window, len(layer.window.bytes))
    assert read_rows(layer.window, rows).isfinite().all()
    assert layer.indexer.state[8:].isfinite().all()
    assert read_rows(layer.window, torch.arange(engine.pool.window)).isnan().all(), "slot 0"
    empty(engine.pool)
    for layer in engine.pool.layers:
        for one in (layer.compressor, layer.indexer):
            if one is not None:
                assert one.state.isnan().all()
                assert read_rows(one.entries, torch.arange(len(one.entries.bytes))).isnan().all()
        assert read_rows(layer.window, torch.arange(len(layer.window.bytes))).isnan().all()


def test_comparison_names_the_bucket_and_the_first_tensor_that_differs() -> None:
    shape = Shape(8, (8, 8), 67)
    eager = {
        "window_rows": torch.arange(6).view(3, 2),
        "logits": torch.tensor([[0.0, 1.0], [2.0, 3.0]]),
        "best": torch.tensor([1, 1]),
    }
    check_replay(eager, {n: t.clone() for n, t in eager.items()}, shape)
    for name, line in (("window_rows", 2), ("logits", 1), ("best", 0)):
        replayed = {n: t.clone() for n, t in eager.items()}
        replayed[name][line] += 1
        with pytest.raises(CaptureUnsafe) as caught:
            check_replay(eager, replayed, shape)
        assert caught.value.asked == "replay the decode step for 8 sequences of up to 67 tokens"
        assert caught.value.found.startswith(f"{name} differs")
        assert caught.value.found.endswith(f"the first {line}")


def test_comparison_of_nan_with_nan_is_no_evidence() -> None:
    nan = {"logits": torch.tensor([[torch.nan, 1.0]])}
    with pytest.raises(CaptureUnsafe, match="not finite"):
        check_replay(nan, {"logits": nan["logits"].clone()}, Shape(1, (), 5))


def test_rows_go_to_the_host_once_and_only_those_that_are_read() -> None:
    logits = torch.randn(5, 7)
    output = StepOutput(logits, [0] * 5)
    assert output.on_host([]).shape == (0, 7)
    assert torch.equal(output.on_host([1, 4]), logits[[1, 4]])
    assert output.on_host(range(5)).data_ptr() == logits.data_ptr()


GREEDY = SamplingParams(max_tokens=12, ignore_eos=True)
DRAWN = SamplingParams(max_tokens=9, ignore_eos=True, temperature=0.8, seed=5, logprobs=2)


@pytest.mark.parametrize("params", [GREEDY, DRAWN])
def test_metadata_made_on_either_side_gives_the_same_events(
    folder: Path, engine: Engine, params: SamplingParams
) -> None:
    """Greedy rows and drawn ones in one step, prefill between decode steps."""
    told = []
    for one in (engine, engine_of(folder, static=False)):
        events: list[Token] = []
        for i in range(5):
            prompt = tuple((7 * i + j) % one.config.vocab_size for j in range(60 + 30 * i))
            one.submit(Request(i, prompt, params if i % 2 else GREEDY))
            events += [e for e in one.step() if isinstance(e, Token)]
        while one.busy:
            events += [e for e in one.step() if isinstance(e, Token)]
        told.append(sorted(events, key=lambda e: e.request_id))
    assert told[0] == told[1] and len(told[0]) > 40
