"""The public face: run any Triton kernel's gfx942 machine code on NumPy arrays or CPU tensors.

launch() compiles (or loads) the kernel, puts its arguments into emulated memory, runs every
workgroup, runs the checks that were asked for, and copies what was written back into the arrays.
When a fault is found nothing is written back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isobath.emulator.buffers import Buffers, HostArray, host_array, is_array
from isobath.emulator.checks import Checked, run_checked
from isobath.emulator.code import Program, load
from isobath.emulator.execute import KERNARG, MOST_LDS, check_resources, pack_arguments
from isobath.emulator.faults import LaunchError
from isobath.emulator.global_unit import Watch
from isobath.emulator.machine import Dispatch
from isobath.emulator.schedule import INSTRUCTION_LIMIT

Grid = int | Sequence[int] | Callable[[Mapping[str, Any]], Sequence[int]]
CHECKS = ("waits", "lds", "poison", "schedule")
"""What `all` stands for. "traffic" is no check: it counts LDS conflicts and coalescing."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What ran. program: the machine code; grid, num_warps, lds_bytes: of the dispatch; outcome:
    executed instructions and which checks passed; hsaco, assembly: the binary and its text, empty
    when they were loaded."""

    program: Program
    grid: tuple[int, int, int]
    num_warps: int
    lds_bytes: int
    outcome: Checked
    hsaco: bytes = b""
    assembly: str = ""

    def __str__(self) -> str:
        d = self.program.descriptor
        return (
            f"{self.program.name}: {self.outcome.instructions} wave instructions, {d.vgprs} VGPRs, "
            f"{self.lds_bytes} bytes LDS, {d.scratch_bytes} bytes scratch, "
            f"checked {', '.join(self.outcome.passed) or 'bounds only'}"
        )


@dataclass(frozen=True, slots=True)
class _Loaded:
    program: Program
    lds_bytes: int
    num_warps: int
    arguments: tuple[HostArray | int | float, ...]
    meta: Mapping[str, Any]
    hsaco: bytes = b""
    assembly: str = ""


def launch(
    kernel: Any,
    grid: Grid,
    *args: Any,
    num_warps: int = 4,
    num_stages: int = 2,
    exact: bool = False,
    checks: str | Iterable[str] = "all",
    entry: str = "preload",
    reachable: Sequence[Any] = (),
    **constexprs: Any,
) -> Launch:
    """Run a Triton kernel's gfx942 code on the CPU; arrays are written in place.

    kernel: a @triton.jit function, or the path of an hsaco or amdgcn text file. grid: workgroups,
    an int, up to three, or a function of the arguments by name. args: the kernel's parameters in
    order: NumPy arrays, torch CPU tensors (FP8 included), numbers; for a file without constexprs
    and None. exact: bit-exact matrix accumulation. checks: "all", "none", or some of "waits",
    "lds", "poison", "schedule" and "traffic" (counts for perf.py, "all,traffic" with every check);
    bounds are always checked.
    entry: "preload" or "legacy", the kernel's two entry points. reachable: arrays that are no
    arguments, but whose addresses (data_ptr()) the kernel loads from an argument. constexprs:
    further parameters by name, and compile options.

    Raises Fault for what the kernel does wrong, UnsupportedInstruction for what the emulator does
    not know, LaunchError for arguments that cannot be passed.
    """
    wanted = _checks(checks)
    if entry not in ("preload", "legacy"):
        raise LaunchError(f"emulator: entry={entry!r}", do="pass preload or legacy")
    loaded: Any
    if isinstance(kernel, str | Path):
        loaded = _load_file(Path(kernel), args, num_warps, constexprs)
    else:
        from isobath.emulator.triton_code import compile_kernel

        options = {"num_warps": num_warps, "num_stages": num_stages}
        loaded = compile_kernel(kernel, args, constexprs, options)
    others = [host_array(f"reachable {k}", a) for k, a in enumerate(reachable)]
    return _run(loaded, _grid(grid, loaded.meta), wanted, exact=exact, entry=entry, others=others)


def run_program(
    program: Program,
    grid: tuple[int, int, int],
    arguments: Sequence[tuple[str, Any]],
    *,
    num_warps: int,
    lds_bytes: int,
    exact: bool = False,
    checks: str | Iterable[str] = "all",
    limit: int = INSTRUCTION_LIMIT,
    watch: Watch | None = None,
) -> Launch:
    """launch() for code that is already compiled: arguments are (name, array or number) in the
    order of the kernarg segment; a float argument must be a Python float. limit: instructions of
    one group of waves before a run counts as endless. watch: sees every access of the first run."""
    bound = tuple(host_array(name, a) if is_array(a) else a for name, a in arguments)
    loaded = _Loaded(program, lds_bytes, num_warps, bound, {})
    return _run(loaded, grid, _checks(checks), exact=exact, limit=limit, watch=watch)


def _run(
    loaded: Any,
    grid: tuple[int, int, int],
    checks: tuple[str, ...],
    *,
    exact: bool,
    entry: str = "preload",
    limit: int = INSTRUCTION_LIMIT,
    watch: Watch | None = None,
    others: Sequence[HostArray] = (),
) -> Launch:
    """loaded: a _Loaded or a TritonCode; others: arrays that are no arguments."""
    check_resources(loaded.program, loaded.num_warps, loaded.lds_bytes)
    arrays = [a for a in loaded.arguments if isinstance(a, HostArray)]
    buffers = Buffers([*arrays, *others], loaded.program.image)
    values = [buffers.address(a) if isinstance(a, HostArray) else a for a in loaded.arguments]
    packed = pack_arguments(loaded.program.descriptor, values, grid, loaded.num_warps)
    kernarg = buffers.memory.add(KERNARG, packed, writable=False)
    dispatch = Dispatch(grid, loaded.num_warps, loaded.lds_bytes, kernarg, entry, exact)
    outcome = run_checked(loaded.program, buffers, dispatch, checks, limit, watch)
    buffers.write_back()
    return Launch(
        loaded.program,
        grid,
        loaded.num_warps,
        loaded.lds_bytes,
        outcome,
        loaded.hsaco,
        loaded.assembly,
    )


def _checks(checks: str | Iterable[str]) -> tuple[str, ...]:
    named = {"all": CHECKS, "none": ()}
    words = [c for c in checks.split(",") if c] if isinstance(checks, str) else list(checks)
    wanted = tuple(dict.fromkeys(c for word in words for c in named.get(word, (word,))))
    unknown = [c for c in wanted if c not in (*CHECKS, "traffic")]
    if unknown:
        raise LaunchError(
            f"emulator: no check is called {', '.join(unknown)}",
            do=f"pass all, none, or some of {', '.join(CHECKS)}",
        )
    return wanted


def _grid(grid: Grid, meta: Mapping[str, Any]) -> tuple[int, int, int]:
    found = grid(meta) if callable(grid) else grid
    sizes = [int(found)] if isinstance(found, int) else [int(n) for n in found]
    if not 1 <= len(sizes) <= 3 or any(n < 0 for n in sizes):
        raise LaunchError(f"emulator: grid {found!r}", do="pass one to three sizes")
    sizes += [1] * (3 - len(sizes))
    return sizes[0], sizes[1], sizes[2]


def _load_file(
    path: Path, args: Sequence[Any], num_warps: int, named: Mapping[str, Any]
) -> _Loaded:
    """A compiled file; LDS and waves from Triton's .json beside it where there is one."""
    if named:
        raise LaunchError(
            f"emulator: {path.name} is compiled and takes no {', '.join(named)}",
            do="pass its runtime arguments by position",
        )
    program = load(path)
    side = path.with_suffix(".json")
    facts = json.loads(side.read_text()) if side.exists() else {}
    threads = program.descriptor.max_threads
    warps = facts.get("num_warps") or (threads // 64 if 64 <= threads < 1024 else num_warps)
    shared = facts.get("shared", MOST_LDS)
    arguments = tuple(
        host_array(f"argument {k}", a) if is_array(a) else a for k, a in enumerate(args)
    )
    return _Loaded(program, shared, int(warps), arguments, {})
