"""The latency benchmark: every figure comes of what it says, and figures fit each other."""

from __future__ import annotations

import json

import pytest

from isobath import LLM, EngineConfig
from isobath.bench import latency
from isobath.bench.latency import Batch


def test_the_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    latency.main(batch=Batch(2, 8, 4, warmup=0, iters=2), device="cpu")
    out = capsys.readouterr().out
    report = json.loads(out.splitlines()[-1])
    assert (report["batch_size"], report["input_len"], report["output_len"]) == (2, 8, 4)
    for name in ("latency_s", "ttft_s", "time_per_output_token_s"):
        row = report[name]
        assert 0 < row["p50"] <= row["p90"] <= row["p99"] and row["mean"] > 0
    assert "time_per_output_token" in out and "2 sequences of 8 + 4 tokens, 2 times" in out


@pytest.mark.parametrize("output_len", [1, 5])
def test_a_batch_takes_as_long_as_its_first_token_and_the_others(output_len: int) -> None:
    """Its sequences start together and are of one length, so each lasts about as long as it."""
    llm = LLM(engine=EngineConfig(max_num_seqs=3, prefix_caching=False), device="cpu")
    found = latency.measure(llm, Batch(3, 6, output_len, warmup=1, iters=2))
    assert len(found["latency"]) == 2 and len(found["ttft"]) == 6
    rest = found.get("time_per_output_token", [0.0] * 6)
    assert ("time_per_output_token" in found) == (output_len > 1)
    for at, (first, step) in enumerate(zip(found["ttft"], rest, strict=True)):
        assert 0 < first + step * (output_len - 1) < found["latency"][at // 3]
