"""Every kernel of every op, compiled for GPUs that are not here, keeps its contract.

gfx942 on every run, gfx950 and sm_90 under the nightly marker: some minutes each where Triton's
cache knows nothing yet.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from isobath.ops.table import contract, op_names, table_names
from isobath.xcompile.flash import DECODE, Launched, record_flash
from isobath.xcompile.sweep import Row, judge, judge_op, record
from isobath.xcompile.target import MACHINES

ROOT = Path(__file__).parents[2]
GFX942 = MACHINES["gfx942"]
ELSEWHERE = {"fp8_tma_kernel", "factors_kernel", "attend_gluon_kernel"}
"""Kernels of the backends triton_tma, cublas and gluon, which load on their machines alone."""
TRITON_OPS = [name for name in op_names() if "triton" in contract(name).backends]
BY_DAY = [
    pytest.param(name, marks=pytest.mark.nightly) if name == "sparse_attention" else name
    for name in TRITON_OPS
]
"""Of an op whose kernels are attend's there is nothing new by day."""
ARCHS = ["gfx942", *(pytest.param(a, marks=pytest.mark.nightly) for a in ("gfx950", "sm_90"))]


def report(rows: list[Row]) -> str:
    """What is broken, a line a kernel."""
    broken = (r for r in rows if r.broken)
    return "\n".join(f"{r.kernel} {', '.join(r.cases)}: {'; '.join(r.broken)}" for r in broken)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", BY_DAY)
def test_every_kernel_of_an_op_keeps_its_contract(name: str, arch: str) -> None:
    rows = judge_op(contract(name), MACHINES[arch])
    assert rows and not report(rows), report(rows)


@pytest.fixture(scope="module")
def flash() -> Callable[[str], Launched]:
    """What V4-Flash launches on a target, recorded once."""
    return cache(lambda arch: record_flash(MACHINES[arch]))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", table_names())
def test_every_kernel_of_v4_flash_keeps_its_contract(
    flash: Callable[[str], Launched], name: str, arch: str
) -> None:
    rows = judge(contract(name), MACHINES[arch], flash(arch)[name])
    assert rows and not report(rows), report(rows)


def test_v4_flash_is_recorded_at_its_size(flash: Callable[[str], Launched]) -> None:
    """Experts' weights are 2 GiB a matrix and more, caches less: 64-bit pointers where they must be
    and nowhere else. Every op of the table launches in every decode step."""
    found = flash("gfx942")
    ranges: dict[bool, set[bool]] = {True: set(), False: set()}
    for launch in (x for steps in found.values() for step in steps.values() for x in step):
        assert launch.machine is GFX942
        for i, name in enumerate(launch.signature):
            value = next((a.value for a in launch.arguments if a.name == name), None)
            if isinstance(value, torch.Tensor):
                large = value.untyped_storage().nbytes() >= 2**31
                names = {attribute for attribute, _ in launch.attrs[(i,)]}
                ranges[large].add("tt.pointer_range" in names)
    assert ranges == {True: {False}, False: {True}}
    for name in table_names():
        assert {f"flash decode {n}" for n in DECODE} <= set(found[name]), name


def launched_names(root: Path) -> set[str]:
    """Names in `name[grid](...)` wherever the ops' Triton files say that."""
    found = set()
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
                kernel = node.func.value
                if isinstance(kernel, ast.Name) and _is_kernel(path, kernel.id):
                    found.add(kernel.id)
    return found


def _is_kernel(path: Path, name: str) -> bool:
    """Whether the file defines or imports a jitted function of that name."""
    text = path.read_text(encoding="utf-8")
    return "triton" in text and hasattr(_module(path), name)


def _module(path: Path) -> object:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return importlib.import_module(".".join(parts))


def test_no_kernel_is_left_out(flash: Callable[[str], Launched]) -> None:
    """Every kernel that the source launches is launched by a case or by V4-Flash."""
    seen = {x.name for steps in flash("gfx942").values() for step in steps.values() for x in step}
    for name in TRITON_OPS:
        op = contract(name)
        for case in op.cases():
            if not case.gpu_only:
                seen |= {launch.name for launch in record(op, case, GFX942)[0]}
    assert launched_names(ROOT / "isobath" / "ops") - seen == ELSEWHERE
