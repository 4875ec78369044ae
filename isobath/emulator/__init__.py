"""A gfx942 (MI300X) machine-code emulator in NumPy: runs any Triton kernel's binary on a CPU.

    from isobath.emulator import launch
    launch(kernel, (n_blocks,), x, y, n, BLOCK=256)

docs/emulator.md is the tutorial, with the list of what is modelled and what is not. Agreement here
means that the gfx942 binary computes the right answer in this emulator; nothing has been run on an
MI300X.
"""

from isobath.emulator.faults import (
    Deadlock,
    Fault,
    HostCall,
    InstructionLimit,
    LaunchError,
    LdsFault,
    LdsOutOfBounds,
    LdsRace,
    MissingWait,
    OutOfBounds,
    PoisonDifference,
    ResourceLimit,
    ScheduleDifference,
    ScratchOutOfBounds,
    UninitialisedLds,
    UnsupportedInstruction,
)
from isobath.emulator.launch import Launch, launch, run_program

__all__ = [
    "Deadlock",
    "Fault",
    "HostCall",
    "InstructionLimit",
    "Launch",
    "LaunchError",
    "LdsFault",
    "LdsOutOfBounds",
    "LdsRace",
    "MissingWait",
    "OutOfBounds",
    "PoisonDifference",
    "ResourceLimit",
    "ScheduleDifference",
    "ScratchOutOfBounds",
    "UninitialisedLds",
    "UnsupportedInstruction",
    "launch",
    "run_program",
]
