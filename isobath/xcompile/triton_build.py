"""A recorded launch compiled: the linked binary, its assembly, and what Triton says about it.

    binary = compiled(launch)

For AMD `code` is the hsaco, an ELF that the emulator runs; for NVIDIA the cubin, of which the
wheel's own cuobjdump says registers and stack (the driver, which would know, is not here). Triton's
disk cache is used: what is unchanged is not compiled again.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

import triton
from triton.compiler import ASTSource

from isobath.xcompile.triton_record import Launch, gpu_target

FORMS = {"hip": ("hsaco", "amdgcn"), "cuda": ("cubin", "ptx")}
"""(binary, assembly) as Triton names them."""


@dataclass(frozen=True, slots=True)
class Binary:
    """code: hsaco or cubin. assembly: amdgcn or PTX. shared_bytes: dynamic LDS of a workgroup,
    which the ELF does not say. metadata: Triton's record of the compilation. usage: what cuobjdump
    says of a cubin, "" for AMD, whose assembly says it itself."""

    code: bytes
    assembly: str
    shared_bytes: int
    metadata: dict[str, Any]
    usage: str = ""


def compiled(launch: Launch) -> Binary:
    """Compile for the machine that the launch was recorded for. Raises what Triton raises."""
    source = ASTSource(launch.function, launch.signature, launch.constexprs, launch.attrs)
    kernel = triton.compile(source, target=gpu_target(launch.machine), options=launch.options)
    code, assembly = FORMS[launch.machine.kind]
    return Binary(
        code=kernel.asm[code],
        assembly=kernel.asm[assembly],
        shared_bytes=int(kernel.metadata.shared),
        metadata=kernel.metadata._asdict(),
        usage=_usage(kernel.asm[code]) if launch.machine.kind == "cuda" else "",
    )


def _usage(cubin: bytes) -> str:
    """What the wheel's cuobjdump says about the resources of this binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
