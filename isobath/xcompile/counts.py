"""What executing a kernel counts that its text does not say: clocks of the matrix units, LDS bank
conflicts, coalescing, all from the addresses of the op's small cases in the gfx942 emulator.

Each specialisation is counted where a case launches it first; the specialisations of the model's
own sizes are compiled and not executed, and have no counts. No check is run here: that a kernel is
right is emulate.py's to say, and no count is a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.emulator import Launch as Ran
from isobath.emulator.perf import clocks
from isobath.ops.contract import Op
from isobath.ops.measure import CPU, Subject
from isobath.xcompile.emulate import GFX942, cases_of, run_launch
from isobath.xcompile.triton_record import Launch, recording


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one launch. instructions: executed, once a wave. matrix_clocks, bound_clocks: of a compute
    unit's matrix units and of its busiest unit, each as if alone. lds_conflict: LDS clocks over
    those without conflicts; loaded, stored: 64-byte segments touched over bytes asked for."""

    instructions: int
    matrix_clocks: float
    bound_clocks: float
    lds_conflict: float
    loaded: float
    stored: float

    @classmethod
    def of(cls, ran: Ran) -> Counts:
        """Of a launch that ran with the check "traffic"."""
        outcome = ran.outcome
        assert outcome.traffic is not None
        cost = clocks(outcome.mix, outcome.traffic)
        return cls(
            outcome.instructions,
            cost.matrix,
            cost.bound,
            outcome.traffic.lds_conflict,
            outcome.traffic.coalescing("load"),
            outcome.traffic.coalescing("store"),
        )


def count_op(op: Op) -> dict[tuple[str, str], Counts]:
    """(kernel, specialisation) -> counts, over the op's small cases. Raises what a kernel's fault
    raises."""
    found: dict[tuple[str, str], Counts] = {}

    def act(launch: Launch) -> None:
        ran = run_launch(launch, exact=False, checks="traffic").ran
        found.setdefault((launch.name, launch.specialisation), Counts.of(ran))

    for case in cases_of(op, None):
        subject = Subject(op, op.backend("triton"), case, GFX942.dialect, CPU)
        with torch.no_grad(), recording(GFX942, act):
            subject.observe(subject.prepared(subject.build()))
    return found
