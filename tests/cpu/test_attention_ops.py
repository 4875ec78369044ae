"""Properties of sparse_attention that no single case can state: what a rotation, a sink, an
invisible row or a dialect may and may not change.

Runs the torch backend at small geometry. Agreement with the references, determinism and batch
invariance are judged elsewhere, on the ops' cases.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath.cache.layout import kv_row
from isobath.cache.view import CacheView, allocate, read_rows, write_rows
from isobath.numerics import DIALECTS, OCP, Dialect, decode_table, ue8m0
from isobath.ops.contract import Arguments
from isobath.ops.sparse_attention.cases import Inputs
from isobath.ops.table import contract

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)
WIDTH, ROPE = 64, 16
PACKED, PLAIN = kv_row(WIDTH, ROPE), kv_row(WIDTH, ROPE, plain=True)
UNROTATED = torch.cat((torch.ones(1, ROPE // 2), torch.zeros(1, ROPE // 2)), 1)


def torch_op(name: str) -> Any:
    return contract(name).backend("torch")


def attend(args: Arguments) -> torch.Tensor:
    out = torch_op("sparse_attention")(**args)
    assert isinstance(out, torch.Tensor)
    return out


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def angles(positions: torch.Tensor) -> torch.Tensor:
    """cos_sin float32 [T, ROPE] at positions."""
    angle = positions.view(-1, 1) * 10.0 ** (-torch.arange(ROPE // 2) / 2)
    return torch.cat((angle.cos(), angle.sin()), 1)


def turned(x: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
    """x [T, WIDTH] with the last ROPE values rotated, in float64."""
    out, half, first = x.double().clone(), ROPE // 2, WIDTH - ROPE
    cos, sin = cos_sin[:, :half].double(), cos_sin[:, half:].double()
    a, b = out[:, first::2].clone(), out[:, first + 1 :: 2].clone()
    out[:, first::2], out[:, first + 1 :: 2] = a * cos - b * sin, a * sin + b * cos
    return out


# ---- sparse_attention


def one_key(value: torch.Tensor, q: torch.Tensor, cos_sin: torch.Tensor, sink: float) -> Arguments:
    """One token that attends one plain row; no compressed entries."""
    cache = allocate(2, PLAIN, OCP, CPU)
    write_rows(cache, torch.tensor([1]), value.view(1, WIDTH))
    return {
        "q": q.view(1, 1, WIDTH),
        "window": cache,
        "compressed": None,
        "sink": torch.tensor([sink]),
        "cos_sin": cos_sin,
        "window_rows": torch.tensor([[-1, 1]]),
        "pages": None,
        "sequence": torch.tensor([0]),
        "visible": None,
        "selected": None,
        "scale": WIDTH**-0.5,
        "single": True,
    }


STEPS = pytest.mark.parametrize(
    "inputs",
    [
        Inputs(((0, 1), (50, 1), (200, 1)), width=WIDTH, rope=ROPE),
        Inputs(((0, 1), (50, 1), (200, 1)), width=WIDTH, rope=ROPE, topk=8),
        Inputs(((3, 90), (61, 1)), width=WIDTH, rope=ROPE),
        Inputs(((3, 90), (61, 1)), width=WIDTH, rope=ROPE, topk=8),
    ],
    ids=["decode", "decode_selected", "prefill", "prefill_selected"],
)


def as_plain(cache: CacheView) -> CacheView:
    """The decoded rows of a cache, as a cache of plain rows."""
    rows = read_rows(cache, torch.arange(len(cache.bytes)))
    return CacheView(rows.contiguous().view(torch.uint8), PLAIN, cache.dialect)


@STEPS
@BOTH
def test_packed_rows_attend_like_the_plain_rows_they_decode_to(
    inputs: Inputs, dialect: Dialect
) -> None:
    args = inputs(dialect, CPU, generator())
    decoded = {n: as_plain(args[n]) for n in ("window", "compressed")}
    assert torch.equal(attend(args), attend(args | decoded))


def dense(args: Arguments, t: int) -> torch.Tensor:
    """Token t by torch's own attention in float64, the sink a zero key, before the last turn."""
    window_rows, pages = args["window_rows"][t], args["pages"]
    entries = torch.arange(int(args["visible"][t]))
    if args["selected"] is not None:
        entries = args["selected"][t][args["selected"][t] >= 0]
    keys = torch.cat(
        (
            read_rows(args["window"], window_rows[window_rows >= 0]),
            read_rows(args["compressed"], pages.rows(args["sequence"][t], entries)),
            torch.zeros(1, WIDTH),
        )
    ).double()
    q = args["q"][t].double().unsqueeze(1)
    bias = torch.zeros(len(q), 1, len(keys), dtype=torch.float64)
    bias[:, 0, -1] = args["sink"].double()
    shared = keys.expand(len(q), -1, -1)
    out = torch.nn.functional.scaled_dot_product_attention(
        q, shared, shared, attn_mask=bias, scale=args["scale"]
    )
    return out.squeeze(1)


@STEPS
def test_sparse_attention_is_torchs_attention_over_the_same_rows(inputs: Inputs) -> None:
    args = inputs(OCP, CPU, generator())
    args["q"] = args["q"].float()
    got = attend(args)
    for t in range(len(got)):
        back = args["cos_sin"][t : t + 1] * torch.tensor([1.0, -1.0]).repeat_interleave(ROPE // 2)
        want = turned(dense(args, t), back.expand(inputs.heads, -1))
        # fp32 scores of size ~8 err by sqrt(64) * 2^-24 * 8 = 4e-6, as do the weights from them;
        # values are below 5, so 1e-4 leaves a factor of 5. A missing row moves results by 1e-2.
        assert (got[t] - want).abs().max() < 1e-4


@STEPS
@BOTH
def test_rows_that_no_token_may_see_never_matter(inputs: Inputs, dialect: Dialect) -> None:
    args = inputs(dialect, CPU, generator())
    expected = attend(args)
    window, compressed, pages = args["window"], args["compressed"], args["pages"]
    seen = torch.zeros(len(compressed.bytes), dtype=torch.bool)
    for t, count in enumerate(args["visible"].tolist()):
        seen[pages.rows(args["sequence"][t], torch.arange(count))] = True
    assert not seen.all()
    window_seen = torch.zeros(len(window.bytes), dtype=torch.bool)
    window_seen[args["window_rows"][args["window_rows"] >= 0]] = True
    for seed in range(3):
        for cache, used in ((compressed, seen), (window, window_seen)):
            noise = torch.randint(0, 256, cache.bytes.shape, generator=generator(seed))
            cache.bytes[~used] = noise.to(torch.uint8)[~used]
        assert torch.equal(attend(args), expected)


def test_one_tokens_invisible_entries_never_matter_though_its_neighbours_see_them() -> None:
    args = Inputs(((3, 90),), width=WIDTH, rope=ROPE)(OCP, CPU, generator())
    expected = attend(args)
    last = int(args["visible"][-1]) - 1
    row = args["pages"].rows(torch.tensor(0), torch.tensor(last))
    args["compressed"].bytes[row] = 0xFF
    got, blind = attend(args), args["visible"] <= last
    assert torch.equal(got[blind], expected[blind])
    assert got[~blind].isnan().all()


@BOTH
@pytest.mark.parametrize("single", [True, False])
def test_a_row_gives_nan_exactly_when_its_dialect_calls_a_code_nan(
    dialect: Dialect, single: bool
) -> None:
    nan = decode_table(dialect).isnan()
    cache = allocate(257, PACKED, dialect, CPU)
    cache.bytes.zero_()
    cache.bytes[:, PACKED.scale_offset] = ue8m0.BIAS
    cache.bytes[1:, 5] = torch.arange(256, dtype=torch.uint8)
    args = one_key(torch.zeros(WIDTH), torch.ones(WIDTH), UNROTATED, 0.0)
    args |= {
        "window": cache,
        "q": torch.ones(256, 1, WIDTH),
        "cos_sin": UNROTATED.expand(256, -1),
        "window_rows": torch.arange(1, 257).view(-1, 1),
        "sequence": torch.arange(256) if single else torch.zeros(256, dtype=torch.int64),
        "single": single,
    }
    out = attend(args).squeeze(1)
    assert torch.equal(out.isnan().all(1), nan)
    assert torch.equal(out.isnan().any(1), nan)


@given(st.integers(0, 2000), st.integers(0, 2000))
@settings(max_examples=50, deadline=None)
def test_a_single_attended_key_comes_out_turned_by_its_distance_alone(key: int, query: int) -> None:
    value = torch.randn(1, WIDTH, generator=generator(key))
    at = angles(torch.tensor([float(key), float(query)]))
    stored = turned(value, at[:1]).float()
    out = attend(one_key(stored, torch.randn(WIDTH), at[1:], -1e30)).view(1, WIDTH)
    assert torch.equal(out[:, : WIDTH - ROPE], value[:, : WIDTH - ROPE])  # its weight is exactly 1
    back = at[1:] * torch.tensor([1.0, -1.0]).repeat_interleave(ROPE // 2)
    want = turned(turned(value, at[:1]), back)
    # Storing rounds to 2^-24, cosines and sines are each off by 2^-25, turning back rounds three
    # times: at most 4 * 2^-24 of |value| < 6.
    assert (out - want).abs().max() < 6 * 4 * 2**-24
    if key == query:  # the same, and cos^2 + sin^2 is 1 to within 2^-23
        assert (out - value).abs().max() < 6 * 6 * 2**-24


@given(st.floats(-20, 20), st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_the_sink_takes_its_share_of_the_mass(sink: float, count: int) -> None:
    value = torch.randn(WIDTH, generator=generator(count))
    args = one_key(value, torch.zeros(WIDTH), UNROTATED, sink)
    args["window"] = allocate(1 + count, PLAIN, OCP, CPU)
    args["window_rows"] = torch.arange(1, 1 + count).view(1, -1)
    write_rows(args["window"], args["window_rows"][0], value.expand(count, -1))
    got = attend(args).view(WIDTH)
    share = count / (count + torch.tensor(sink, dtype=torch.float64).exp())
    # count equal weights, each rounded to 2^-24 of itself, summed in any order: count * 2^-24; and
    # exp is good to a few ulp of its argument, 20 * 2^-24.
    bound = (count + 64) * 2.0**-24
    assert (got - share * value.double()).norm() <= bound * share * value.norm()


def test_a_token_does_not_depend_on_how_it_is_scheduled() -> None:
    """The last token of a prefill attends the same rows when it comes as a decode step."""
    args = Inputs(((3, 90),), width=WIDTH, rope=ROPE, plain=True)(OCP, CPU, generator())
    together = attend(args)
    alone = contract("sparse_attention").select(args, [89]) | {"single": True}
    # Two orders of summing fp32 scores and values; see the bound against torch's attention.
    assert (attend(alone)[0] - together[89]).abs().max() < 1e-4
