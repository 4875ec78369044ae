"""A whole launch: kernel arguments packed, workgroups run batch after batch.

Batches keep registers inside the processor's cache; a kernel that waits for other workgroups (any
atomic) runs with all of them resident instead. Nothing here knows tensors or Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from isobath.emulator.bits import Array, u8
from isobath.emulator.blocks import Compiled, compile_program
from isobath.emulator.code import Descriptor, Program
from isobath.emulator.faults import LaunchError, ResourceLimit
from isobath.emulator.global_unit import Watch
from isobath.emulator.machine import Dispatch, Machine
from isobath.emulator.memory import Memory
from isobath.emulator.schedule import INSTRUCTION_LIMIT, Order, Schedule, run_in_turn

POISON = 0xDEADBEEF
BATCH_WAVES = 256
MOST_LDS, MOST_WARPS = 65536, 16
KERNARG = "kernel arguments"


def pack_arguments(
    descriptor: Descriptor,
    values: Sequence[int | float],
    grid: tuple[int, int, int] = (1, 1, 1),
    num_warps: int = 1,
) -> Array:
    """The kernarg segment: values in order, trailing scratch pointers null, what the runtime adds.

    Hidden arguments other than sizes (queues, host calls) stay null: using one is out of bounds.
    """
    visible = [slot for slot in descriptor.arguments if not slot.kind.startswith("hidden_")]
    if len(values) > len(visible):
        raise LaunchError(
            f"emulator: {len(values)} arguments",
            found=f"the kernel takes {len(visible)}, of which the last may be scratch pointers",
            do="pass what the kernel's signature names, without its constexprs",
        )
    ends = (slot.offset + slot.size for slot in descriptor.arguments)
    size = max([descriptor.kernarg_bytes, *ends])
    out = np.zeros(-(-size // 4) * 4 + 64, u8)
    for slot, value in zip(visible, values, strict=False):
        out[slot.offset : slot.offset + slot.size] = _bytes_of(value, slot.size)
    sizes = {"hidden_group_size_x": 64 * num_warps, "hidden_grid_dims": 3}
    sizes |= {f"hidden_block_count_{axis}": n for axis, n in zip("xyz", grid, strict=True)}
    sizes |= {f"hidden_group_size_{axis}": 1 for axis in "yz"}
    for slot in descriptor.arguments:
        if slot.kind in sizes:
            out[slot.offset : slot.offset + slot.size] = _bytes_of(sizes[slot.kind], slot.size)
    return out


def _bytes_of(value: int | float, size: int) -> Array:
    if isinstance(value, float):
        kind = {2: np.float16, 4: np.float32, 8: np.float64}[size]
        return np.array([value], kind).view(u8)
    whole = int(value) & ((1 << 8 * size) - 1)
    return np.frombuffer(whole.to_bytes(size, "little"), u8)


def check_resources(program: Program, num_warps: int, lds_bytes: int) -> None:
    """Raises ResourceLimit where a compute unit could not hold one workgroup."""
    if lds_bytes > MOST_LDS:
        raise ResourceLimit(
            f"{program.name} uses {lds_bytes} bytes of LDS",
            found=f"a gfx942 workgroup has {MOST_LDS}",
            effect="the launch fails on an MI300X, although the kernel compiles",
            do="smaller tiles or fewer stages",
        )
    if not 1 <= num_warps <= MOST_WARPS:
        raise ResourceLimit(
            f"{program.name} launched with {num_warps} waves", found=f"1 to {MOST_WARPS} fit"
        )


def uses_atomics(program: Program) -> bool:
    """Whether workgroups can meet in memory."""
    return any("atomic" in instruction.name for instruction in program.instructions)


def execute(
    program: Program,
    memory: Memory,
    dispatch: Dispatch,
    *,
    order: Order = "lockstep",
    poison: int = POISON,
    watch: Callable[[Machine], Watch] | None = None,
    shown: Sequence[Watch] = (),
    limit: int = INSTRUCTION_LIMIT,
) -> Array:
    """Run every workgroup; the executions of each block, counted in waves.

    watch: makes a Watch for each batch of workgroups; shown: those of the whole launch. All
    see every wave in lockstep alone.
    """
    compiled: Compiled = compile_program(program)
    total, warps = dispatch.workgroups, dispatch.num_warps
    serial = order != "lockstep" and warps > 1
    batch = total if uses_atomics(program) else max(1, BATCH_WAVES // (1 if serial else warps))
    counts = np.zeros(len(compiled.blocks), np.int64)
    machines: list[Machine] = []
    for first in range(0, total, batch):
        size = min(batch, total - first)
        if not machines or machines[0].workgroups != size:
            places = _turns(order, warps) if serial else [None]
            machines = []
            for place in places:
                other = machines[0] if machines else None
                machine = Machine(compiled, memory, dispatch, size, place=place, part_of=other)
                machines.append(machine)
        for machine in machines:
            machine.reset(first, poison)
            machine.counts.fill(0)
            machine.watches.clear()
        if watch:
            machines[0].watches.append(watch(machines[0]))
        machines[0].watches.extend(shown)
        if serial:
            run_in_turn(machines, limit)
        else:
            Schedule(machines[0], limit).run()
        counts += sum(machine.counts for machine in machines)
    return counts


def _turns(order: Order, warps: int) -> list[int | None]:
    """Places in a workgroup in the order in which their waves run."""
    return list(range(warps) if order == "forward" else range(warps - 1, -1, -1))
