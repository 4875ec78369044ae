"""What cross-compilation makes for this GPU is what the JIT makes on it, to the instruction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton.runtime.jit import JITFunction

from isobath.ops.contract import Case, Op
from isobath.ops.placement import copied
from isobath.ops.table import contract, op_names
from isobath.target import detect
from isobath.xcompile.elf import code_hash
from isobath.xcompile.sweep import SEED, record
from isobath.xcompile.target import machine_of
from isobath.xcompile.triton_build import FORMS, compiled

pytestmark = pytest.mark.gpu
TRITON_OPS = [name for name in op_names() if "triton" in contract(name).backends]


def launched(op: Op, case: Case, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(kernel, hash of its machine code) of everything that the case really launches here."""
    target, found = detect("gpu"), list[tuple[str, str]]()
    form, run = FORMS[machine_of(target.arch).kind][0], JITFunction.run

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        kernel = run(self, *args, **kwargs)
        found.append((self.fn.__name__, code_hash(kernel.asm[form])))
        return kernel

    generator = torch.Generator().manual_seed(SEED)
    args = case.make(target.dialect, torch.device("cpu"), generator)
    args = copied(args, target.device)
    backend = op.backend("triton")
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(JITFunction, "run", noting)
        args |= {name: backend.prepare(args[name]) for name in op.weights}
        backend(**args)
    torch.cuda.synchronize()
    return found


@pytest.mark.parametrize("name", TRITON_OPS)
def test_the_jit_compiles_what_was_compiled_without_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    op, machine = contract(name), machine_of(detect("gpu").arch)
    for case in op.cases():
        if not case.gpu_only:
            launches, _ = record(op, case, machine)
            apart = [(launch.name, code_hash(compiled(launch).code)) for launch in launches]
            assert apart == launched(op, case, monkeypatch), case.name
