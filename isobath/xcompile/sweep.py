"""Every kernel of every op on one machine: recorded over the op's cases, compiled once for each
distinct specialisation, counted and judged.

Every kernel must fit: LDS within the machine's, no vector register spilled, on AMD no scratch (on
NVIDIA the slow path of a sine has some). What an op promises besides stands in its contract's
`asm`: a text with '!' must not appear in any of its kernels, one without must appear in at least
one kernel of every case that launches any and speaks a dialect: what is promised of exact numerics
is only what must not appear. Where it says PERMITTED, another backend is the machine's own: vector
registers spilled there are shown and break nothing. Scalar spills cost a lane of a vector
register, not memory; they are reported and break nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

import torch

from isobath.cache.layout import RowLayout
from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Op
from isobath.xcompile.counts import Counts
from isobath.xcompile.elf import code_hash
from isobath.xcompile.resources import Resources, instructions, resources
from isobath.xcompile.target import Machine
from isobath.xcompile.triton_build import Binary, compiled
from isobath.xcompile.triton_record import Launch, recording

SEED = 20260731
PERMITTED = "~spills"
"""In a contract's `asm`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel, specialised in one way. cases: those of the op that launch it. specialisation:
    names that way whatever the source. code: hash of the machine code, "" if there is none. broken:
    what it breaks, for people. counts: of an execution, where there was one."""

    op: str
    kernel: str
    arch: str
    cases: tuple[str, ...]
    num_warps: int
    num_stages: int
    specialisation: str
    code: str
    found: Resources | None
    broken: tuple[str, ...]
    counts: Counts | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def record(op: Op, case: Case, machine: Machine) -> tuple[list[Launch], bool]:
    """(what op's Triton launcher launches on a case's inputs, drawn on the CPU; whether any of them
    speaks a dialect)."""
    backend, launches = op.backend("triton"), list[Launch]()
    with torch.no_grad(), recording(machine, launches.append):
        generator = torch.Generator().manual_seed(SEED)
        args = case.make(machine.dialect, torch.device("cpu"), generator)
        args |= {name: backend.prepare(args[name]) for name in op.weights}
        backend(**args)
    return launches, speaks(args)


def speaks(args: Arguments) -> bool:
    """Whether a call is in FP8: its cache rows are, or where it has none, there is a dialect."""
    values = list(_walk(args))
    layouts = [value for value in values if isinstance(value, RowLayout)]
    if layouts:
        return not all(layout.plain for layout in layouts)
    return any(isinstance(value, Dialect) for value in values)


def _walk(value: Any) -> Iterator[Any]:
    """A value and everything inside its containers and records."""
    yield value
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, list | tuple):
        inside = list(value)
    elif is_dataclass(value):
        inside = [getattr(value, f.name) for f in fields(value)]
    else:
        inside = []
    for item in inside:
        yield from _walk(item)


def judge_op(
    op: Op, machine: Machine, steps: Mapping[str, list[Launch]] | None = None
) -> list[Row]:
    """Rows of one op, its cases in order; one that cannot be recorded has a row of its own. steps:
    further launches of it, by what they are part of (flash.py)."""
    launched: dict[str, list[Launch]] = {}
    exact: set[str] = set()
    rows: list[Row] = []
    for case in (case for case in op.cases() if not case.gpu_only):
        try:
            launched[case.name], native = record(op, case, machine)
            if not native:
                exact.add(case.name)
        except Exception as error:  # a launcher may raise anything, and doing so is its verdict
            rows.append(_failed(op, machine, (case.name,), _told("cannot be recorded", error)))
    return rows + judge(op, machine, launched | dict(steps or {}), exact)


def judge(
    op: Op, machine: Machine, launched: dict[str, list[Launch]], exact: Collection[str] = ()
) -> list[Row]:
    """Rows of recorded launches by case, one for each distinct specialisation. exact: cases that
    speak no dialect."""
    wanted = op.asm.get(machine.arch, ())
    users: dict[tuple[str, str], tuple[Launch, list[str]]] = {}
    for case, launches in launched.items():
        for launch in launches:
            cases = users.setdefault(launch.key, (launch, []))[1]
            if case not in cases:
                cases.append(case)
    rows, code = list[Row](), dict[tuple[str, str], str]()
    for key, (launch, cases) in users.items():
        try:
            binary = compiled(launch)
        except Exception as error:  # so may the compiler
            text = _told("does not compile", error)
            rows.append(_failed(op, machine, tuple(cases), text, launch))
            continue
        code[key] = "\n".join(instructions(machine.kind, binary.assembly))
        rows.append(_row(op, launch, binary, tuple(cases), code[key], wanted))
    for case, launches in launched.items():
        together = "\n".join(code.get(launch.key, "") for launch in launches)
        missing = [text for text in wanted if text[0] not in "!~" and text not in together]
        if launches and missing and case not in exact:
            text = f"none of its kernels has {', '.join(missing)}"
            rows.append(_failed(op, machine, (case,), text))
    return rows


def limits(machine: Machine, found: Resources, wanted: Sequence[str] = ()) -> list[str]:
    """Which of the rules for every kernel are broken. wanted: the op's contract."""
    broken = []
    if found.lds_bytes > machine.lds_bytes:
        broken.append(f"LDS {found.lds_bytes:,} B > {machine.lds_bytes:,}")
    if found.vector_spills and PERMITTED not in wanted:
        broken.append(f"{found.vector_spills} registers spilled")
    if found.scratch_bytes and machine.kind == "hip":
        broken.append(f"{found.scratch_bytes:,} B of scratch a lane")
    return broken


def _row(
    op: Op,
    launch: Launch,
    binary: Binary,
    cases: tuple[str, ...],
    code: str,
    wanted: Sequence[str],
) -> Row:
    warps = int(launch.options["num_warps"])
    found = resources(
        launch.machine,
        binary.assembly,
        usage=binary.usage,
        shared_bytes=binary.shared_bytes,
        num_warps=warps,
    )
    broken = limits(launch.machine, found, wanted)
    broken += [f"has {text[1:]}" for text in wanted if text[0] == "!" and text[1:] in code]
    return Row(
        op=op.name,
        kernel=launch.name,
        arch=launch.machine.arch,
        cases=cases,
        num_warps=warps,
        num_stages=int(launch.options["num_stages"]),
        specialisation=launch.specialisation,
        code=code_hash(binary.code),
        found=found,
        broken=tuple(broken),
    )


def _told(what: str, error: BaseException) -> str:
    """One line: what, and the innermost error's last words, without the source Triton quotes."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    return f"{what}: {type(error).__name__}: {words[-1] if words else ''}"


def _failed(
    op: Op, machine: Machine, cases: tuple[str, ...], text: str, launch: Launch | None = None
) -> Row:
    return Row(
        op=op.name,
        kernel=launch.name if launch else "",
        arch=machine.arch,
        cases=cases,
        num_warps=int(launch.options["num_warps"]) if launch else 0,
        num_stages=int(launch.options["num_stages"]) if launch else 0,
        specialisation=launch.specialisation if launch else "",
        code="",
        found=None,
        broken=(text,),
    )
