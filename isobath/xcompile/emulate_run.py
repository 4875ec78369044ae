"""`isobath emulate`: ops' small cases through the gfx942 emulator; one line a case, exit code 1
when one disagrees. Prints and counts; emulate.py does the work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from isobath.errors import BackendUnavailable
from isobath.numerics.dialect import DIALECTS
from isobath.ops.table import contract, op_names

CAVEAT = "emulation of gfx942 machine code, not an MI300X"


def main(
    ops: Sequence[str],
    case: str | None,
    *,
    dialect: str = "fnuz",
    exact: bool = False,
    checks: str = "all",
    as_json: bool = False,
) -> int:
    """Exit code: 0, or 1 when a case disagrees or faults. ops: all with Triton kernels if ()."""
    emulation = _with_triton()
    wanted = [op for op in map(contract, ops or op_names()) if "triton" in op.backends]
    done, wrong = 0, 0
    for op in wanted:
        for one in emulation.cases_of(op, case):
            found = emulation.emulate(op, one, DIALECTS[dialect], exact=exact, checks=checks)
            done += 1
            wrong += not found.agrees
            if as_json:
                print(json.dumps(_record(found)), flush=True)
            else:
                verdict = "agrees" if found.agrees else "DISAGREES"
                print(
                    f"{op.name} {one.name}: {verdict}, worst error {found.error:.3g}, "
                    f"{found.instructions} wave instructions in {len(found.runs)} launches, "
                    f"{found.seconds:.1f} s",
                    flush=True,
                )
                if found.note and not found.agrees:
                    print("    " + found.note.replace("\n", "\n    "), flush=True)
    if not as_json:
        print(f"{done} cases, {wrong} disagree; {CAVEAT}")
    return int(wrong > 0)


def _record(found: Any) -> dict[str, Any]:
    names = ("op", "case", "dialect", "agrees", "error", "note", "seconds", "instructions")
    facts = {name: getattr(found, name) for name in names}
    return facts | {"launches": [str(run) for run in found.runs]}


def _with_triton() -> ModuleType:
    try:
        from isobath.xcompile import emulate
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise BackendUnavailable(
            "emulation",
            found="no triton in this environment",
            effect="there is no compiler for gfx942",
            do="pip install 'isobath[asm]'",
        ) from error
    return emulate
