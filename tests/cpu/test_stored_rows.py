"""What a chunk boundary and a ring may not change in stored rows, and the bit tricks of the CPU's
rows against the plain rules of isobath.numerics.

Runs the torch backends at small geometry. Agreement with the references is judged elsewhere, on the
ops' cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath.cache.layout import kv_row
from isobath.cache.view import CacheView, allocate, copy_rows
from isobath.numerics import DIALECTS, FNUZ, OCP, Dialect, decode_table, fp8, ue8m0
from isobath.ops import torch_rows
from isobath.ops.compress_insert.cases import Plan
from isobath.ops.table import contract

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)
WIDTH, ROPE = 64, 16
PACKED = kv_row(WIDTH, ROPE)


def torch_op(name: str) -> Any:
    return contract(name).backend("torch")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def angles(positions: torch.Tensor) -> torch.Tensor:
    """cos_sin float32 [T, ROPE] at positions."""
    angle = positions.view(-1, 1) * 10.0 ** (-torch.arange(ROPE // 2) / 2)
    return torch.cat((angle.cos(), angle.sin()), 1)


# ---- compressor: chunk boundaries


def compressed_bytes(cuts: list[int], ratio: int, dialect: Dialect) -> torch.Tensor:
    """Cache bytes of all entries of one prompt, fed in chunks that end at `cuts`."""
    total, source = cuts[-1], generator(ratio)
    channels = 2 * WIDTH if ratio == 4 else WIDTH
    fresh = torch.randn(total, 2, channels, generator=source)
    ape = torch.randn(ratio, channels, generator=source)
    ring = 8 if ratio == 4 else ratio
    state = torch.full((2 * ring, 2, channels), torch.nan)
    cache = allocate(1 + total // ratio, PACKED, dialect, CPU)
    start = 0
    for end in cuts:
        plan = Plan(((start, end - start),), ratio, padded=False)
        torch_op("compress_insert")(
            fresh[start:end],
            ape,
            torch.ones(WIDTH),
            angles(torch.tensor(plan.entries).float() * ratio),
            state,
            cache,
            positions=torch.tensor(plan.positions),
            pool_rows=torch.tensor(plan.sources, dtype=torch.int64).view(-1, ring),
            entry_rows=torch.tensor(plan.entries, dtype=torch.int64) + 1,
            keep_tokens=torch.tensor(plan.keep_tokens),
            keep_rows=torch.tensor(plan.keep_rows),
            dtype=torch.bfloat16,
            eps=1e-6,
        )
        start = end
    return cache.bytes[1:]


@st.composite
def cuts(draw: st.DrawFn, longest: int) -> list[int]:
    total = draw(st.integers(1, longest))
    inner = draw(st.sets(st.integers(1, total - 1), max_size=8)) if total > 1 else set()
    return [*sorted(inner), total]


@settings(max_examples=60, deadline=None)
@given(cuts(40))
def test_ratio_4_entries_do_not_depend_on_where_a_prompt_is_cut(ends: list[int]) -> None:
    whole = compressed_bytes(ends[-1:], 4, OCP)
    assert torch.equal(compressed_bytes(ends, 4, OCP), whole)


@settings(max_examples=25, deadline=None)
@given(cuts(400))
def test_ratio_128_entries_do_not_depend_on_where_a_prompt_is_cut(ends: list[int]) -> None:
    whole = compressed_bytes(ends[-1:], 128, FNUZ)
    assert torch.equal(compressed_bytes(ends, 128, FNUZ), whole)


@pytest.mark.parametrize("ratio", [4, 128])
def test_entries_of_a_prompt_fed_token_by_token_are_those_of_the_whole(ratio: int) -> None:
    total = 3 * ratio + 2
    one_by_one = compressed_bytes(list(range(1, total + 1)), ratio, OCP)
    assert torch.equal(one_by_one, compressed_bytes([total], ratio, OCP))


# ---- window ring


def insert_rows(cache: CacheView, kv: torch.Tensor, start: int, slots: torch.Tensor) -> None:
    cos_sin = angles(torch.arange(start, start + len(kv)).float())
    torch_op("window_insert")(kv, torch.ones(WIDTH), cos_sin, cache, slots, eps=1e-6)


@settings(max_examples=25, deadline=None)
@given(cuts(400))
def test_committing_staged_rows_leaves_the_ring_that_single_tokens_leave(ends: list[int]) -> None:
    size, total = 128, ends[-1]
    kv = torch.randn(total, WIDTH, generator=generator()).bfloat16()
    ring = allocate(1 + size, PACKED, OCP, CPU)
    staged = allocate(1 + size + total, PACKED, OCP, CPU)
    for position in range(total):
        slot = torch.tensor([1 + position % size])
        insert_rows(ring, kv[position : position + 1], position, slot)
    start = 0
    for end in ends:
        staging = torch.arange(1 + size, 1 + size + end - start)
        insert_rows(staged, kv[start:end], start, staging)
        kept = torch.arange(max(start, end - size), end)
        copy_rows(staged, 1 + size + kept - start, 1 + kept % size)
        start = end
    assert torch.equal(staged.bytes[1 : 1 + size], ring.bytes[1 : 1 + size])


# ---- rows: the bit tricks against numerics


@BOTH
def test_rows_decode_to_every_code_times_every_scale(dialect: Dialect) -> None:
    """All 256 codes and all scales whose factor is finite: bit-equal to the table, NaN included."""
    layout = kv_row(WIDTH, ROPE)
    cache = allocate(257, layout, dialect, CPU)
    table = decode_table(dialect)
    cache.bytes.zero_()
    cache.bytes[1:, : layout.nope] = torch.arange(256, dtype=torch.uint8).view(-1, 1)
    rows = torch.arange(1, 257)
    for scale in [*range(0, 247), 255]:
        cache.bytes[:, layout.scale_offset] = scale
        out = torch.empty(256, WIDTH)
        torch_rows.decode_into(out, torch_rows.gather(cache, rows), cache)
        factor = ue8m0.decode(torch.tensor([scale], dtype=torch.uint8))
        want = (table * factor).view(-1, 1).expand(-1, layout.nope)
        got = out[:, : layout.nope]
        assert torch.equal(got.isnan(), want.isnan()), scale
        assert torch.equal(got[~want.isnan()], want[~want.isnan()]), scale


def amaxes() -> Iterator[float]:
    """Around every power of two times 1.75 up to where scales end, where a scale steps up."""
    for exponent in range(-60, 127):
        edge = torch.tensor(1.75 * 2.0**exponent)
        for value in (edge, torch.nextafter(edge, edge * 2), torch.nextafter(edge, edge / 2)):
            yield float(value)


@BOTH
def test_blocks_quantise_to_the_bytes_of_the_common_rule(dialect: Dialect) -> None:
    blocks = torch.randn(3 * 187 + 3, 64, generator=generator()).clamp_(-1, 1)
    edges = torch.tensor([*amaxes()])
    blocks[3:] *= edges.view(-1, 1)
    blocks[3:, 0] = edges
    blocks[0], blocks[1, 5], blocks[2, 5] = 0.0, torch.nan, -torch.inf
    codes, exponent = torch_rows.quantize_blocks(blocks, dialect)
    want = fp8.quantize(blocks, dialect, (1, 64))
    assert torch.equal(codes.view(torch.uint8), want.data.view(torch.uint8))
    byte, scale, _ = torch_rows.block_scales(dialect)
    assert torch.equal(byte[exponent], want.scale.squeeze(1))
    assert torch.equal(
        scale[exponent].nan_to_num(-1), ue8m0.decode(want.scale.squeeze(1)).nan_to_num(-1)
    )
