"""moe and its parts in Triton's interpreter: right on their cases, and what they promise.

Each test starts a process, because the interpreter is chosen when triton is first imported. This
file is also what those processes run: `python -m tests.cpu.test_triton_moe CHECK`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from isobath.errors import BackendUnavailable
from isobath.numerics import OCP, fp8, mxfp4
from isobath.ops.experts import ExpertWeights
from isobath.ops.experts.packing import pack
from isobath.ops.experts.tl_dispatch import tile_at
from isobath.ops.table import contract
from tests.support.interpreter import BY_DAY_AND_NIGHT, judged, repair

ROOT = Path(__file__).parent.parent.parent
CASES = {
    "route": "one ragged odd_width pairs_tied nan_in exact_padding padding hash_padding",
    "experts": "one two_blocks padding_ragged negative_zero scale_spread nan_in exact_ragged",
    "moe": "one",
}


@pytest.mark.parametrize("dialect", BY_DAY_AND_NIGHT)
@pytest.mark.parametrize("op", CASES)
def test_triton_backend_keeps_its_contract(op: str, dialect: str) -> None:
    """The tolerances are the ops' `agree`, derived beside each contract."""
    rows = list(judged(op, tuple(CASES[op].split()), dialect))
    assert len(rows) == len(CASES[op].split())
    for row in rows:
        assert row["agrees"], row
        assert row["deterministic"] is True, row
        assert row["batch_invariant"] is not False, row


def test_aiter_is_refused_with_a_reason() -> None:
    with pytest.raises(BackendUnavailable, match="experts"):
        contract("experts").backend("aiter")


def test_minus_zero_is_packed_as_zero() -> None:
    codes = torch.full((1, 256, 128), 0x88, dtype=torch.uint8)
    scale = torch.full((1, 256, 8), 127, dtype=torch.uint8)
    for lanes in ("wgmma", "mfma"):
        assert not pack(mxfp4.Mxfp4Tensor(codes, scale), lanes, paired=True).words.any()


@pytest.mark.parametrize("check", ["heights", "lanes", "buckets", "together"])
def test_in_interpreter(check: str) -> None:
    command = [sys.executable, "-m", "tests.cpu.test_triton_moe", check]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _operands(tokens: int, num_experts: int, k: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, 256, generator=generator)
    chosen = torch.rand(tokens, num_experts, generator=generator).argsort(-1)[:, :k].contiguous()
    weights = torch.rand(tokens, k, generator=generator)
    w13 = torch.randn(num_experts, 256, 256, generator=generator) / 16
    w2 = torch.randn(num_experts, 256, 128, generator=generator) / 12
    return x, chosen, weights, w13, w2


def _output(height: int | None, tokens: int = 40) -> torch.Tensor:
    from dataclasses import replace

    from isobath.ops.experts.triton_kernel import experts, prepare

    x, chosen, weights, w13, w2 = _operands(tokens, 3, 2)
    prepared = prepare(ExpertWeights(mxfp4.quantize(w13), mxfp4.quantize(w2)))
    quantized = fp8.quantize(x, OCP, fp8.ACTIVATION_BLOCK)
    prepared = replace(prepared, height=height)
    return experts(quantized, chosen, weights, prepared, None, limit=10.0).summed()


def heights() -> None:
    """No tile height changes a bit. In the interpreter a sum over 128 of K is NumPy's, whose order
    is its own; it is exact here all but always, since products have 6 significant bits."""
    first = _output(16)
    for height in (32, 64, 128):
        assert torch.equal(first, _output(height)), height


def lanes() -> None:
    """gfx942's order of codes in a word, and its half tiles, give the values of sm_90's."""
    from isobath.ops.tl_common import LaunchTarget, assume

    first = _output(16)
    with assume(LaunchTarget("hip", 304)):
        assert torch.equal(first, _output(16))


@triton.jit
def tiles_kernel(counts, out, E: tl.constexpr, BINS: tl.constexpr, BM: tl.constexpr):
    """Grid: tiles. out: int32 [tiles, 3], what tile_at() says of each."""
    expert, first, rows = tile_at(counts, tl.program_id(0), E, BINS, BM)
    tl.store(out + tl.program_id(0) * 3, expert)
    tl.store(out + tl.program_id(0) * 3 + 1, first)
    tl.store(out + tl.program_id(0) * 3 + 2, rows)


def buckets() -> None:
    """Every pair is in its expert's bucket once, tiles cover each bucket once, rows are exact."""
    from isobath.ops.experts.triton_kernel import Buckets, _dispatch
    from isobath.ops.tl_common import pow2

    for tokens, num_experts, k, height in ((1, 5, 3, 16), (53, 5, 3, 16), (300, 40, 6, 32)):
        x, chosen, *_ = _operands(tokens, num_experts, k)
        chosen[torch.rand(chosen.shape) < 0.2] = -1
        quantized = fp8.quantize(x, OCP, fp8.ACTIVATION_BLOCK)
        filled = Buckets.empty(num_experts, tokens, x.device)
        filled.counts.zero_()
        rows = _dispatch(quantized, chosen, filled)
        assert torch.equal(rows.float(), fp8.dequantize(quantized))
        flat = chosen.flatten()
        wanted = [(flat == expert).nonzero().flatten().tolist() for expert in range(num_experts)]
        assert filled.counts.tolist() == [len(pairs) for pairs in wanted]
        for expert, pairs in enumerate(wanted):
            assert sorted(filled.pairs[expert, : len(pairs)].tolist()) == pairs
        tiles = num_experts + flat.numel() // height
        table = torch.zeros(tiles, 3, dtype=torch.int32)
        tiles_kernel[(tiles,)](
            filled.counts, table, E=num_experts, BINS=pow2(num_experts), BM=height
        )
        covered = []
        for expert, first, count in table.tolist():
            assert count <= height
            covered += [(expert, first + i) for i in range(max(count, 0))]
        assert covered == [(e, i) for e, pairs in enumerate(wanted) for i in range(len(pairs))]


def together() -> None:
    """moe gives the bits of its parts, for few tokens and many, learned and by table."""
    from isobath.ops.measure import Subject
    from isobath.ops.tl_common import LaunchTarget, assume

    op = contract("moe")
    parts = {
        name: contract(name).backend("triton") for name in ("route", "shared_expert", "experts")
    }
    for name, kind in (("one", "cpu"), ("hash_ragged", "cpu"), ("ragged", "hip")):
        case = next(case for case in op.cases() if case.name == name)
        subject = Subject(op, op.backend("triton"), case, OCP, torch.device("cpu"))
        with assume(LaunchTarget(kind, 1)):
            args = subject.prepared(subject.build())
            whole = op.backend("triton")(**args)
            routing = {
                n: args[n] for n in ("x", "gate", "token_ids", "bias", "table", "k", "scale")
            }
            chosen, weights = parts["route"](**routing)
            w13, w2, limit = args["shared_w13"], args["shared_w2"], args["limit"]
            shared = parts["shared_expert"](args["quantized"], w13, w2, limit=limit)
            apart = parts["experts"](
                args["quantized"], chosen, weights, args["expert_weights"], shared, limit=limit
            )
        assert torch.equal(whole.experts, apart.experts), name
        assert torch.equal(whole.shared, apart.shared), name
        assert torch.equal(whole.summed(), apart.summed()), name


if __name__ == "__main__":
    repair()
    checks = {"heights": heights, "lanes": lanes, "buckets": buckets, "together": together}
    checks[sys.argv[1]]()
