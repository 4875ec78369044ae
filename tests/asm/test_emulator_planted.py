"""Mistakes that a kernel can hold are found, and the report says where. Each test prints its report
into the assertion, and each has a correct twin that is not reported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isobath.emulator import (
    Fault,
    HostCall,
    LdsRace,
    MissingWait,
    OutOfBounds,
    ScheduleDifference,
    UninitialisedLds,
    UnsupportedInstruction,
    launch,
)
from isobath.numerics import FNUZ, OCP, quantize
from isobath.numerics.compare import Exact, Relative
from tests.support import triton_faulty as faulty
from tests.support import triton_fresh as fresh
from tests.support import triton_survey_combine as combine
from tests.support import triton_tutorial as tutorial


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def edited(folder: Path, run: Any, pattern: str, text: str = "", count: int = 0) -> Path:
    """A file with the assembly of `run`, changed; LDS and waves beside it as Triton writes them."""
    assembly, times = re.subn(pattern, text, run.assembly, count=count, flags=re.MULTILINE)
    assert times, pattern
    path = folder / "edited.s"
    path.write_text(assembly)
    facts = {"shared": run.lds_bytes, "num_warps": run.num_warps}
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


def reported(kind: type[Fault], *parts: str, call: Any) -> str:
    """The report of the fault that `call` must raise; it must contain every part."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    for part in parts:
        assert part in text, text
    return text


def rotation(folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """rotate without its barriers, and arrays to run it on."""
    x = rng().standard_normal(256).astype(np.float32)
    out = np.zeros_like(x)
    run = launch(faulty.rotate, 1, x, out, 256, B=256)
    assert np.array_equal(out, np.roll(x, -1))
    return edited(folder, run, r"^\ts_barrier", "\ts_nop 0"), x, out


def test_removed_barrier_is_a_race(tmp_path: Path) -> None:
    path, x, out = rotation(tmp_path)
    reported(
        LdsRace, "ds_read", "wave", "without a barrier",
        call=lambda: launch(path, 1, x, out, 256, checks="lds"),
    )  # fmt: skip


def test_removed_barrier_changes_the_result_of_another_schedule(tmp_path: Path) -> None:
    path, x, out = rotation(tmp_path)
    launch(path, 1, x, out, 256, checks="none")
    assert np.array_equal(out, np.roll(x, -1)), "lockstep alone hides this race"
    reported(
        ScheduleDifference, "order of waves", "argument 1",
        call=lambda: launch(path, 1, x, out, 256, checks="schedule"),
    )  # fmt: skip


def test_unwritten_lds_behind_an_atomic_is_reported_where_it_matters(tmp_path: Path) -> None:
    counter, out = np.zeros(1, np.int32), np.zeros(4, np.int32)
    run = launch(fresh.ticket, 4, counter, out, 5)
    path = edited(tmp_path, run, r"^\tds_write_b32 .*$", "\ts_nop 0")
    reported(
        UninitialisedLds, "ds_read_b32", "never written",
        call=lambda: launch(path, 4, counter, out, 5),
    )  # fmt: skip
    # A float maximum is two integer atomics, one of them masked off: nobody writes its result.
    x, best = np.array([1, -2, 3], np.float32), np.zeros(1, np.float32)
    launch(combine.scalar_atomics, 3, x, best, OP="max")
    assert best[0] == 3


def test_half_an_atomics_word_may_lie_past_the_end_and_a_whole_one_may_not() -> None:
    x, total = np.arange(9, dtype=np.float16), np.zeros(1, np.float16)
    launch(combine.scalar_atomics, 9, x, total, OP="add")
    assert total[0] == 36
    reported(
        OutOfBounds, "buffer x (16 bytes)",
        call=lambda: launch(combine.scalar_atomics, 9, x[:8].copy(), total, OP="add"),
    )  # fmt: skip


def test_a_call_of_the_host_is_named() -> None:
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    reported(HostCall, "device_print", call=lambda: launch(combine.printed, 1, x, out, B=64))
    reported(
        HostCall, "lane 10 ", "assert",
        call=lambda: launch(combine.asserted, 1, x, out, B=64, debug=True),
    )  # fmt: skip
    launch(combine.asserted, 1, x % 10, out, B=64, debug=True)
    assert np.array_equal(out, x % 10)


def test_slot_past_the_cache_is_out_of_bounds() -> None:
    x, cache = np.ones((3, 64), np.float32), np.zeros((8, 64), np.float32)
    launch(faulty.insert_row, 3, x, np.array([0, 7, 3]), cache, B=64)
    assert cache.sum() == 3 * 64
    reported(
        OutOfBounds, "store of", "workgroup (1, 0, 0)", "buffer cache (2048 bytes)",
        call=lambda: launch(faulty.insert_row, 3, x, np.array([0, 8, 3]), cache, B=64),
    )  # fmt: skip


def test_missing_padding_mask_is_out_of_bounds() -> None:
    x, out = np.ones((4, 100), np.float32), np.zeros(100, np.float32)
    reported(
        OutOfBounds, "load of", "past its end", "buffer x (1600 bytes)",
        call=lambda: launch(faulty.column_sums_unpadded, 1, x, out, 4, 100, B=128),
    )  # fmt: skip


def test_offset_that_wraps_at_32_bits_is_out_of_bounds() -> None:
    stride, rows = 1 << 20, 2100
    x = np.zeros((rows, stride), np.uint8)  # 2.05 GiB of address space, one page of memory
    x[rows - 1, :64] = np.arange(64)
    out = np.zeros(64, np.uint8)
    launch(faulty.row_at_64_bits, 1, x, out, rows - 1, stride, B=64, checks="none")
    assert np.array_equal(out, np.arange(64))
    reported(
        OutOfBounds, "load of", "bytes before buffer x",
        call=lambda: launch(
            faulty.row_at_32_bits, 1, x, out, rows - 1, stride, B=64, checks="none"
        ),
    )  # fmt: skip


def test_wrapped_offset_into_a_small_tensor_is_not_taken_for_a_mask() -> None:
    x, out = np.zeros(1 << 16, np.uint8), np.zeros(64, np.uint8)
    reported(
        OutOfBounds, "buffer_load", "buffer x",
        call=lambda: launch(faulty.row_at_32_bits, 1, x, out, -3, 1 << 12, B=64, checks="none"),
    )  # fmt: skip


def test_dropped_wait_is_found_without_running(tmp_path: Path) -> None:
    x, y = rng().standard_normal((2, 512)).astype(np.float32)
    out = np.zeros_like(x)
    run = launch(tutorial.add, 2, x, y, out, 512, BLOCK=256)
    path = edited(tmp_path, run, r"^\ts_waitcnt vmcnt\(0\)$", "\ts_nop 0")
    reported(
        MissingWait, "v_add_f32", "vmcnt not awaited",
        call=lambda: launch(path, 2, x, y, out, 512),
    )  # fmt: skip


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(a.shape[0], b.shape[1])
    size = (a.shape[0], b.shape[1], a.shape[1])
    launch(tutorial.matmul, (1, 1), a, b, out, *size, BM=32, BN=32, BK=64, checks="none")
    return out


def test_ocp_bytes_read_as_fnuz_disagree() -> None:
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    want = x @ x.T
    agree = Relative(2**-3, per="row")  # two e4m3 roundings of 2**-4 each, at most
    for dialect, right in ((FNUZ, True), (OCP, False)):
        octets = quantize(x, dialect, (1, 64))
        factor = torch.exp2(octets.scale.float() - 127)
        a = octets.data.view(torch.uint8).view(torch.float8_e4m3fnuz)
        got = product(a, a.view(torch.uint8).T.contiguous().view(a.dtype)) * factor * factor.T
        report = agree.compare(got, want)
        assert report.agrees == right, str(report)


def quantised(x: torch.Tensor, limit: float) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.zeros(x.shape, dtype=FNUZ.dtype)
    scale = torch.zeros(1, dtype=torch.uint8)
    bits = int(np.float32(limit).view(np.int32))
    launch(faulty.quantise_block, 1, x, codes, scale, LIMIT=limit, LIMIT_BITS=bits, B=len(x))
    return codes.view(torch.uint8), scale


def test_quantising_to_240_instead_of_224_disagrees() -> None:
    # The largest value, 1.8, lies between 1.75 and 1.875: 224 needs the next scale, 240 does not.
    x = torch.linspace(-1.0, 1.8, 128)
    want = quantize(x[None], FNUZ, (1, 128))
    expected = want.data.view(torch.uint8)[0], want.scale[0]
    for limit, right in ((FNUZ.quant_max, True), (FNUZ.max, False)):
        got = quantised(x, limit)
        reports = [Exact().compare(g, e) for g, e in zip(got, expected, strict=True)]
        assert all(r.agrees for r in reports) == right, [str(r) for r in reports]
    assert "first at" in str(reports[0]), str(reports[0])


def test_unknown_opcode_is_named(tmp_path: Path) -> None:
    x, y = rng().standard_normal((2, 256)).astype(np.float32)
    run = launch(tutorial.add, 1, x, y, np.zeros_like(x), 256, BLOCK=256)
    path = edited(tmp_path, run, r"v_add_f32_e32", "v_cubeid_f32")
    with pytest.raises(UnsupportedInstruction, match="v_cubeid_f32"):
        launch(path, 1, x, y, np.zeros_like(x), 256, checks="none")


def test_unknown_modifier_is_named(tmp_path: Path) -> None:
    x, y = rng().standard_normal((2, 256)).astype(np.float32)
    run = launch(tutorial.add, 1, x, y, np.zeros_like(x), 256, BLOCK=256)
    path = edited(tmp_path, run, r"(v_add_f32_e32 .*)$", r"\1 newmod:3")
    with pytest.raises(UnsupportedInstruction, match="newmod"):
        launch(path, 1, x, y, np.zeros_like(x), 256, checks="none")
