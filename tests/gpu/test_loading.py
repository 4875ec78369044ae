"""Weights arrive on a GPU as they lie in the files, and quickly random where there are none."""

from __future__ import annotations

import time

import pytest
import torch

from isobath.bench.decode_layer import RATIOS
from isobath.engine.llm import BUNDLED
from isobath.model.dummy import Dummy, dummy_model
from isobath.model.load import load
from isobath.model.staging import Staging
from isobath.numerics.dialect import DIALECTS, Dialect
from isobath.ops.placement import tensors
from isobath.ops.table import bind
from isobath.plan import flash_config
from isobath.target import detect

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 1_000_003])
def test_every_byte_passes_through_buffers_much_smaller_than_a_tensor(count: int) -> None:
    source = torch.randint(0, 256, (count,), dtype=torch.uint8)
    assert torch.equal(Staging(GPU, chunk_bytes=4096).upload(source).cpu(), source)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)
def test_bundled_weights_on_the_gpu_are_bit_equal_to_those_on_the_cpu(dialect: Dialect) -> None:
    there, here = (
        load(BUNDLED, numerics="native", dialect=dialect, device=device, ops=bind("reference"))[1]
        for device in (GPU, torch.device("cpu"))
    )
    pairs = list(zip(tensors(there), tensors(here), strict=True))
    assert len(pairs) > 100
    for a, b in pairs:
        assert a.is_cuda and torch.equal(
            a.cpu().view(torch.uint8), b.contiguous().view(torch.uint8)
        )


def test_random_v4_flash_is_there_in_under_a_minute() -> None:
    """12 layers with 8 sets of experts have all the experts that 43 such layers would get."""
    start = time.monotonic()
    _, weights = dummy_model(
        flash_config(),
        dialect=detect("gpu").dialect,
        device=GPU,
        ops=bind("reference"),
        part=Dummy(layers=12, expert_sets=8),
    )
    torch.cuda.synchronize()
    assert time.monotonic() - start < 60
    assert {layer.ratio for layer in weights.layers} == set(RATIOS)
