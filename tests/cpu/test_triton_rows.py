"""The memory-bound Triton kernels in the interpreter: right in both dialects, and a fused op
is its parts.

The interpreter sums with NumPy, whose order depends on shapes; what is compared bit for bit below
has the same shapes on both sides. That holds on a GPU too, where the ops share device functions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.interpreter import BY_DAY_AND_NIGHT, ROOT, judged, repair

CASES = {
    "embed": "one ends padded exact",
    "hyper_enter": "empty one ragged ragged_first summands two_streams odd_width nan_in exact",
    "hyper_mix": "one ragged two_streams saturated closed nan_in exact",
    "hyper_collapse": "ragged strided zero exact",
    "hyper_expand": "ragged strided permutation exact summands summands_alone summands_exact",
    "hyper_head": "ragged saturated closed exact",
    "quantize_act": "ragged zero_block amax_edges_bf16 code_ties extremes nan_in infinity_in fp32",
    "rms_norm": "ragged strided range exact",
    "swiglu": "odd_width strided limits closed nan_in",
    "query_norm_rope": "ragged small zero_head extreme_sizes fp32",
    "window_insert": "ragged small plain_small padded zero_block amax_edge nan_in",
    "latent_insert": "one small plain_small padded all_padding zero_block amax_edge nan_latent",
    "compress_insert": "one_with_entry mixed_padded index_row small plain small_ratio_128"
    " ratio_128_decode_padded small_ratio_128_decode many_due",
    "compress_insert_pair": "one_with_entry decode_padded mixed_padded small plain",
}


@pytest.mark.parametrize("dialect", BY_DAY_AND_NIGHT)
@pytest.mark.parametrize("op", CASES)
def test_triton_keeps_the_contract(op: str, dialect: str) -> None:
    """The tolerance is the op's `agree`, derived beside each contract."""
    rows = list(judged(op, tuple(CASES[op].split()), dialect))
    assert len(rows) == len(CASES[op].split())
    for row in rows:
        assert row["agrees"], (row["case"], row["dialect"], row["note"])
        assert row["deterministic"], row


@pytest.fixture(scope="module")
def equal() -> dict[str, bool]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.cpu.test_triton_rows"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, bool] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", ["ragged", "ragged_first", "two_streams", "exact"])
def test_hyper_enter_is_its_parts_bit_for_bit(case: str, equal: dict[str, bool]) -> None:
    names = ("streams", "post", "comb", "x", "quantized")
    assert {name: equal[f"hyper_enter {case} {name}"] for name in names} == dict.fromkeys(
        names, True
    )


@pytest.mark.parametrize("case", ["summands", "summands_tall", "summands_alone", "summands_exact"])
def test_hyper_enter_adds_the_experts_up_as_their_sum_is_defined(
    case: str, equal: dict[str, bool]
) -> None:
    """Bit for bit what it makes of the finished rows; so is hyper_expand after the last layer."""
    assert equal[f"hyper_enter {case} added"]
    assert equal[f"hyper_expand {case} added"]


@pytest.mark.parametrize("case", ["ragged", "flash", "padded", "plain", "nan_row"])
def test_latent_insert_is_its_parts_bit_for_bit(case: str, equal: dict[str, bool]) -> None:
    assert equal[f"latent_insert {case} latent"]
    assert equal[f"latent_insert {case} cache"]


@pytest.mark.parametrize("case", ["decode_padded", "mixed_padded", "small", "plain"])
def test_compress_insert_pair_is_its_parts_bit_for_bit(case: str, equal: dict[str, bool]) -> None:
    assert equal[f"compress_insert_pair {case} first"]
    assert equal[f"compress_insert_pair {case} index"]


def test_few_tokens_have_the_bits_of_many() -> None:
    """On this target one or two tokens are cut into slices, three into groups of four slices."""
    for row in judged("hyper_enter", ("flash",), "OCP"):
        assert row["batch_invariant"], row


@pytest.mark.parametrize("case", ["mixed", "mixed_padded", "ratio_128_mixed", "start_residue_3"])
def test_a_step_kept_too_early_is_noticed(case: str, equal: dict[str, bool]) -> None:
    """These cases pool rows that the same step overwrites: keeping first must spoil an entry, or
    they would not show that pooling comes first."""
    assert not equal[f"compress_insert {case} kept first"]


@pytest.mark.parametrize("case", ["ratio_128_decode_padded", "small_ratio_128_decode"])
def test_one_launch_of_a_long_window_stores_the_bits_of_two(
    case: str, equal: dict[str, bool]
) -> None:
    assert equal[f"compress_insert {case} in two launches"]
    assert equal[f"compress_insert {case} counters"], "they must be zero again for the next step"


def compare() -> dict[str, bool]:
    repair()
    import torch

    from isobath.numerics.dialect import OCP
    from isobath.numerics.fp8 import dequantize
    from isobath.ops.contract import Arguments, Backend
    from isobath.ops.measure import same_bits
    from isobath.ops.table import contract
    from isobath.ops.tl_gemm_few import counters

    def triton(name: str) -> Backend:
        return contract(name).backend("triton")

    def build(name: str, case: str) -> Arguments:
        (found,) = (c for c in contract(name).cases() if c.name == case)
        args = found.make(OCP, torch.device("cpu"), torch.Generator().manual_seed(3))
        weights = contract(name).weights
        return args | {w: triton(name).prepare(args[w]) for w in weights}

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return same_bits({"": a}, {"": b})

    equal: dict[str, bool] = {}
    for case in ("ragged", "ragged_first", "two_streams", "exact"):
        a = build("hyper_enter", case)
        done, streams = triton("hyper_enter")(**a), a["streams"]
        if a["y"] is not None:
            streams = triton("hyper_expand")(a["y"], streams, a["post"], a["comb"])
        mixer = {name: a[name] for name in ("fn", "base", "scale", "iters", "eps", "norm_eps")}
        pre, post, comb = triton("hyper_mix")(streams, **mixer)
        x = triton("hyper_collapse")(streams, pre, a["norm_weight"], eps=a["norm_eps"])
        parts = {"streams": streams, "post": post, "comb": comb, "x": x, "quantized": x}
        if a["dialect"] is not None:
            parts["quantized"] = dequantize(triton("quantize_act")(x, a["dialect"]))
        seen = contract("hyper_enter").observe(done, a) | {}
        for name, part in parts.items():
            equal[f"hyper_enter {case} {name}"] = same(seen.get(name, done.x), part)
    for case in ("summands", "summands_tall", "summands_alone", "summands_exact"):
        for name in ("hyper_enter", "hyper_expand"):
            a, observe = build(name, case), contract(name).observe
            parts = observe(triton(name)(**a), a)
            whole = observe(triton(name)(**a | {"y": a["y"].summed()}), a)
            equal[f"{name} {case} added"] = same_bits(parts, whole)
    for case in ("ragged", "flash", "padded", "plain", "nan_row"):
        a, b = build("latent_insert", case), build("latent_insert", case)
        latent = triton("latent_insert")(**a)
        low, kv = b["qa_kv"].split([len(b["q_norm"]), len(b["kv_norm"])], 1)
        part = triton("rms_norm")(low, b["q_norm"], eps=b["eps"])
        if b["dialect"] is not None:
            latent = dequantize(latent)
            part = dequantize(triton("quantize_act")(part, b["dialect"]))
        at = (b["kv_norm"], b["cos_sin"], b["cache"], b["slots"])
        triton("window_insert")(kv, *at, eps=b["eps"])
        equal[f"latent_insert {case} latent"] = same(latent, part)
        equal[f"latent_insert {case} cache"] = same(a["cache"].bytes, b["cache"].bytes)
    for case in ("decode_padded", "mixed_padded", "small", "plain"):
        a, b = build("compress_insert_pair", case), build("compress_insert_pair", case)
        triton("compress_insert_pair")(**a)
        same_for_both = ("cos_sin", "positions", "pool_rows", "entry_rows", "keep_tokens")
        same_for_both += ("keep_rows", "dtype", "eps", "single")
        width = 2 * b["ape"].shape[1]
        index_width = 2 * b["index_ape"].shape[1]
        names = {
            "first": (b["fresh"][:, :width], "ape", "norm_weight", "state", "cache"),
            "index": (
                b["fresh"][:, width : width + index_width],
                *("index_ape", "index_norm", "index_state", "index_cache"),
            ),
        }
        for which, (fresh, ape, norm, state, cache) in names.items():
            one = {name: b[name] for name in same_for_both}
            one |= {"ape": b[ape], "norm_weight": b[norm], "state": b[state], "cache": b[cache]}
            triton("compress_insert")(fresh=fresh.unflatten(1, (2, -1)), **one)
            equal[f"compress_insert_pair {case} {which}"] = same(
                a[cache].bytes, b[cache].bytes
            ) and same(a[state], b[state])
    for case in ("mixed", "mixed_padded", "ratio_128_mixed", "start_residue_3"):
        a, b = build("compress_insert", case), build("compress_insert", case)
        triton("compress_insert")(**a)
        nothing = {"pool_rows": b["pool_rows"][:0], "entry_rows": b["entry_rows"][:0]}
        triton("compress_insert")(**b | nothing)
        triton("compress_insert")(**b)
        equal[f"compress_insert {case} kept first"] = same(a["cache"].bytes, b["cache"].bytes)
    for case in ("ratio_128_decode_padded", "small_ratio_128_decode"):
        a, b = build("compress_insert", case), build("compress_insert", case)
        assert a["single"], "a step of several tokens takes two launches anyway"
        triton("compress_insert")(**a)
        triton("compress_insert")(**b | {"single": False})
        equal[f"compress_insert {case} in two launches"] = same(
            a["cache"].bytes, b["cache"].bytes
        ) and same(a["state"], b["state"])
        count = counters(a["fresh"].device, "compress_insert")
        equal[f"compress_insert {case} counters"] = not count.any()
    return equal


if __name__ == "__main__":
    print(json.dumps(compare()))
