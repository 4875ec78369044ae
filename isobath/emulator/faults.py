"""What a kernel did wrong, and what the emulator does not know: one class each.

    Fault                        the kernel broke a rule; the message names instruction, wave, lane
    ├── OutOfBounds                  global memory outside every argument
    │   └── ScratchOutOfBounds           private memory outside the wave's frame
    ├── HostCall                     device_print, or an assert that failed: there is no host
    ├── LdsFault                     something about the workgroup's LDS
    │   ├── LdsOutOfBounds               an address beyond the allocation
    │   ├── LdsRace                      two waves, one place, no barrier between them
    │   └── UninitialisedLds             a read of LDS that nobody wrote
    ├── ScheduleDifference           the result depends on the order of the waves
    ├── PoisonDifference             the result depends on what registers held before
    ├── MissingWait                  a register is used while a load into it may be in flight
    ├── Deadlock                     no wave can go on
    ├── InstructionLimit             the kernel does not end
    └── ResourceLimit                more LDS or threads than a compute unit has
    UnsupportedInstruction       an opcode, modifier or mode that the tables do not hold
    LaunchError                  arguments that no kernel could receive

A Fault is the kernel's; UnsupportedInstruction is a gap of the emulator, never a wrong number.
"""

from __future__ import annotations

from isobath.errors import IsobathError


class Fault(IsobathError):
    """Base class of what a kernel did wrong."""


class OutOfBounds(Fault):
    """A global access outside every buffer."""


class ScratchOutOfBounds(OutOfBounds):
    """A private access outside the lane's frame."""


class HostCall(Fault):
    """The kernel asks the host to print, or to report an assert that failed."""


class LdsFault(Fault):
    """Base class of faults in the workgroup's LDS."""


class LdsOutOfBounds(LdsFault):
    """An LDS access beyond the kernel's allocation."""


class LdsRace(LdsFault):
    """Two waves touched one LDS place between two barriers, and one of them changed it."""


class UninitialisedLds(LdsFault):
    """A read of LDS that no wave of the workgroup had written."""


class ScheduleDifference(Fault):
    """Another legal order of the waves gives other bytes."""


class PoisonDifference(Fault):
    """Another content of uninitialised registers and LDS gives other bytes."""


class MissingWait(Fault):
    """An s_waitcnt is missing on some path."""


class Deadlock(Fault):
    """Every wave that has not ended waits at a barrier that cannot open."""


class InstructionLimit(Fault):
    """The launch executed more instructions than allowed."""


class ResourceLimit(Fault):
    """The kernel needs more than a gfx942 compute unit has."""


class UnsupportedInstruction(IsobathError):
    """An opcode, modifier, operand or mode that is not modelled. name: the opcode."""

    def __init__(self, name: str, text: str, why: str = "") -> None:
        self.name = name
        super().__init__(
            f"emulator: {name} is not modelled",
            found=f"{text}{': ' + why if why else ''}",
            effect="guessing its meaning could give a wrong number",
            do="add the opcode to isobath/emulator/opcodes_*.py with a test, or change the kernel",
        )


class LaunchError(IsobathError):
    """Arguments, grid or options that cannot be launched."""
