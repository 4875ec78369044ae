"""route and experts in Triton's interpreter: right on their cases, and what their parts promise.

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

from isobath.errors import BackendUnavailable
from isobath.numerics import OCP, fp8, mxfp4
from isobath.ops.experts import ExpertWeights
from isobath.ops.experts.packing import pack
from isobath.ops.table import contract
from tests.support.interpreter import judged, repair

ROOT = Path(__file__).parent.parent.parent
CASES = {
    "route": "one ragged odd_width pairs_tied nan_in exact_padding padding hash_padding",
    "experts": "one two_blocks padding_ragged negative_zero scale_spread nan_in exact_ragged",
}


@pytest.mark.parametrize("op", CASES)
def test_triton_backend_keeps_its_contract(op: str) -> None:
    """The tolerances are the ops' `agree`, derived beside each contract."""
    rows = list(judged(op, tuple(CASES[op].split())))
    assert len(rows) == 2 * len(CASES[op].split()), "a case and dialect each"
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


@pytest.mark.parametrize("check", ["heights", "lanes", "dispatch"])
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


def dispatch() -> None:
    """Pairs by expert and then by number, tiles that cover each expert's pairs once, exact rows."""
    from isobath.ops.experts.triton_kernel import _dispatch, plan

    for tokens, num_experts, k, height in ((1, 5, 3, 16), (53, 5, 3, 16), (300, 40, 6, 32)):
        x, chosen, *_ = _operands(tokens, num_experts, k)
        chosen[torch.rand(chosen.shape) < 0.2] = -1
        quantized = fp8.quantize(x, OCP, fp8.ACTIVATION_BLOCK)
        tiles = plan(tokens, k, num_experts, "cpu", height)
        rows, order, table = _dispatch(quantized, chosen, num_experts, tiles)
        assert torch.equal(rows.float(), fp8.dequantize(quantized))
        flat = chosen.flatten()
        wanted = torch.argsort(flat, stable=True)[(flat < 0).sum() :]
        assert torch.equal(order[: len(wanted)].long(), wanted)
        seen = []
        for expert, first, count in table.tolist():
            assert count <= height
            seen += [(expert, int(pair)) for pair in order[first : first + count]]
        assert seen == [(int(flat[pair]), int(pair)) for pair in wanted]


if __name__ == "__main__":
    repair()
    {"heights": heights, "lanes": lanes, "dispatch": dispatch}[sys.argv[1]]()
