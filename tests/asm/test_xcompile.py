"""Cross-compilation: launches are specialised as the JIT specialises them, every rule for machine
code sees a kernel that breaks it. The project's own kernels: test_xcompile_ops.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isobath.errors import ConfigError
from isobath.numerics import FNUZ, OCP
from isobath.numerics.compare import Exact
from isobath.ops.contract import Op
from isobath.xcompile import run
from isobath.xcompile.elf import code_hash
from isobath.xcompile.resources import occupancy
from isobath.xcompile.sweep import Row, judge
from isobath.xcompile.target import MACHINES, machine_of
from isobath.xcompile.triton_build import compiled
from isobath.xcompile.triton_record import Launch, recording
from tests.support import planted_triton as planted

GFX942, GFX950, SM_90 = (MACHINES[arch] for arch in ("gfx942", "gfx950", "sm_90"))
META = torch.device("meta")


def launches(call: Callable[[], Any], machine=GFX942) -> list[Launch]:
    found: list[Launch] = []
    with recording(machine, found.append):
        call()
    return found


def judged(call: Callable[[], Any], *asm: str, machine=GFX942) -> list[Row]:
    """Rows of what `call` launches, under a contract with this `asm`."""
    op = Op("planted", signature=object, agree=Exact(), source="", asm={machine.arch: asm})
    return judge(op, machine, {"case": launches(call, machine)})


def fp8(*shape: int, dialect=FNUZ) -> torch.Tensor:
    return torch.empty(shape, dtype=dialect.dtype, device=META)


def floats(n: int) -> torch.Tensor:
    return torch.empty(n, device=META)


# ---- what the JIT would compile


def test_a_launch_has_the_types_constants_and_attributes_of_its_arguments() -> None:
    [launch] = launches(lambda: planted.add(floats(1000), floats(1000)))
    assert launch.grid == (4, 1, 1) and launch.options["num_warps"] == 2
    assert [(a.name, a.type) for a in launch.arguments] == [
        ("x", "*fp32"), ("y", "*fp32"), ("out", "*fp32"), ("n", "i32"), ("scale", "fp32")
    ]  # fmt: skip
    assert launch.constexprs == {(5,): 256}
    pointer = [["tt.divisibility", 16], ["tt.pointer_range", 32]]
    assert [launch.attrs[(i,)] for i in range(3)] == [pointer] * 3
    assert not launch.attrs.get((3,)), "1000 is no multiple of 16"


@pytest.mark.parametrize(
    ("size", "offset", "attributes"),
    [
        (1000, 4, {"tt.divisibility", "tt.pointer_range"}),
        (1000, 1, {"tt.pointer_range"}),
        (1 << 29, 0, {"tt.divisibility"}),
    ],
    ids=["aligned", "off by 4 bytes", "2 GiB"],
)
def test_alignment_and_storage_decide_the_attributes(size: int, offset: int, attributes: set):
    """Pointer range is about the storage that a slice lies in."""
    x = floats(size)[offset : offset + 64]
    [launch] = launches(lambda: planted.add(x, floats(64)))
    assert {name for name, _ in launch.attrs[(0,)]} == attributes


def test_an_integer_of_one_is_a_constant_and_one_of_sixteen_is_divisible() -> None:
    [one] = launches(lambda: planted.add(floats(1), floats(1)))
    assert one.signature["n"] == "constexpr" and one.constexprs[(3,)] == 1
    assert "n" not in [a.name for a in one.arguments]
    [sixteen] = launches(lambda: planted.add(floats(32), floats(32)))
    assert sixteen.attrs[(3,)] == [["tt.divisibility", 16]]


def test_only_a_hip_target_asks_for_the_size_of_storage() -> None:
    [launch] = launches(lambda: planted.add(floats(64), floats(64)), SM_90)
    assert launch.attrs[(0,)] == [["tt.divisibility", 16]]


def test_equal_specialisations_are_one_kernel() -> None:
    def call() -> None:
        for n in (1000, 1001, 1003):
            planted.add(floats(n), floats(n))
        planted.add(floats(1024), floats(1024))

    assert [row.cases for row in judged(call)] == [("case",), ("case",)]
    assert len({launch.key for launch in launches(call)}) == 2


def test_nothing_is_left_of_a_recording() -> None:
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    before = (JITFunction.run, JITFunction._do_compile, driver._active)
    with pytest.raises(ZeroDivisionError), recording(GFX942, lambda launch: None):
        raise ZeroDivisionError
    assert (JITFunction.run, JITFunction._do_compile, driver._active) == before


# ---- machine code


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_an_fp8_product_uses_the_matrix_units_of_its_dialect(machine) -> None:
    dialect = machine.dialect
    call = lambda: planted.product(  # noqa: E731
        fp8(64, 256, dialect=dialect), fp8(256, 64, dialect=dialect), step=128
    )
    [row] = judged(call, machine=machine)
    assert row.found and not row.broken and len(row.code) == 64
    assert row.found.mix["mfma"] == row.found.mix["mfma_fp8"] > 0
    assert 0 < row.found.registers <= 512 and row.found.occupancy >= 1


def test_the_foreign_dialect_is_decoded_and_not_multiplied_in_fp8() -> None:
    call = lambda: planted.product(  # noqa: E731
        fp8(64, 256, dialect=OCP), fp8(256, 64, dialect=OCP), step=128
    )
    rows = judged(call, "v_mfma_f32_16x16x32_fp8", "!_f16")
    assert rows[0].found and rows[0].found.mix["mfma_fp8"] == 0
    assert any("has _f16" in text for row in rows for text in row.broken)
    assert any("none of its kernels has v_mfma" in text for row in rows for text in row.broken)


@pytest.mark.parametrize(
    ("call", "asm", "report"),
    [
        (
            lambda: planted.product(fp8(256, 512), fp8(512, 256), step=128, warps=4),
            (),
            "registers spilled",
        ),
        (
            lambda: planted.product(fp8(128, 512), fp8(512, 128), step=128, warps=8, stages=4),
            (),
            "LDS 98,304 B > 65,536",
        ),
        (
            lambda: planted.add(floats(64), floats(64)),
            ("v_mfma_f32_",),
            "none of its kernels has v_mfma_f32_",
        ),
        (lambda: planted.product(fp8(64, 256), fp8(256, 64), step=128), ("!_fp8",), "has _fp8"),
        (
            lambda: planted.ill_typed(floats(64)),
            (),
            "does not compile: ValueError: Cannot bitcast data-type of size 32",
        ),
    ],
    ids=["spills", "LDS", "no MFMA", "forbidden", "ill-typed"],
)
def test_a_planted_kernel_is_reported(call: Callable, asm: tuple[str, ...], report: str) -> None:
    broken = [text for row in judged(call, *asm) for text in row.broken]
    assert any(report in text for text in broken), broken


def test_a_spill_is_found_on_nvidia() -> None:
    call = lambda: planted.product(  # noqa: E731
        fp8(64, 128, dialect=OCP), fp8(128, 128, dialect=OCP), step=64, warps=1
    )
    [row] = judged(call, machine=SM_90)
    assert row.found and row.found.vector_spills > 0 and "spilled" in row.broken[0]
    [permitted] = judged(call, "~spills", machine=SM_90)
    assert permitted.found == row.found and not permitted.broken


def test_a_hash_is_of_the_instructions_alone() -> None:
    """Another name, line or comment changes no code; one instruction more does."""
    kernels = (planted.add_kernel, planted.add_under_another_name, planted.add_with_a_clamp)
    for machine in MACHINES.values():
        hashes = []
        for kernel in kernels:
            [launch] = launches(lambda k=kernel: planted.add(floats(64), floats(64), k), machine)
            hashes.append(code_hash(compiled(launch).code))
        assert hashes[0] == hashes[1] != hashes[2], machine.arch


def test_occupancy_counts_whole_workgroups() -> None:
    # 512 registers a lane: 100 are granted as 104, so four waves fit; eight at most.
    assert occupancy(GFX942, 100, 0, 4) == 4.0
    assert occupancy(GFX942, 16, 0, 4) == 8.0
    # 64 KiB of LDS hold three workgroups of 20 KiB with four waves, over four SIMDs.
    assert occupancy(GFX942, 16, 20 * 1024, 4) == 3.0
    # Eight waves of 264 registers do not fit into four SIMDs that hold one each.
    assert occupancy(GFX942, 264, 0, 8) == 0.0
    # 65,536 registers: 128 x 32 x 4 leave four blocks; 100 KiB (+ 1) of 228 leave two.
    assert occupancy(SM_90, 128, 0, 4) == 16.0
    assert occupancy(SM_90, 128, 100 * 1024, 4) == 8.0


# ---- the command


def test_the_command_records_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "gfx942.jsonl"
    assert run.main(["gfx942"], ["swiglu"], as_json=True, flash=False, recorded=file) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["broken"] == 0 and facts["rows"] == [json.loads(x) for x in file.open()]
    assert run.main(["gfx942"], ["swiglu"], flash=False, compared=file) == 0
    assert "0 changed" in capsys.readouterr().out
    rows = facts["rows"]
    file.write_text(json.dumps(rows[0] | {"code": "0" * 64}) + "\n")
    assert run.main(["gfx942"], ["swiglu"], flash=False, compared=file) == 1
    out = capsys.readouterr().out
    assert "other code" in out and out.count(": new") == len(rows) - 1


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="gfx90a"):
        machine_of("gfx90a")
    with pytest.raises(ConfigError, match="no such file"):
        run.main(["gfx942"], ["swiglu"], flash=False, compared=Path("nowhere.jsonl"))
