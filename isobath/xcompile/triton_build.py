"""A recorded launch compiled: the linked binary, its assembly, and what Triton says about it.

    binary = compiled(launch)

For AMD `code` is the hsaco, an ELF that the emulator runs; for NVIDIA the cubin, beside which the
wheel's own ptxas is asked for registers and spills (the driver, which would know, is not here).
Triton's disk cache is used: what is unchanged is not compiled again.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.compiler import ASTSource

from isobath.xcompile.triton_record import Launch, gpu_target

FORMS = {"hip": ("hsaco", "amdgcn"), "cuda": ("cubin", "ptx")}
"""(binary, assembly) as Triton names them."""


@dataclass(frozen=True, slots=True)
class Binary:
    """code: hsaco or cubin. assembly: amdgcn or PTX. shared_bytes: dynamic LDS of a workgroup,
    which the ELF does not say. metadata: Triton's record of the compilation. assembler: what ptxas
    reports, "" for AMD, whose assembly says it itself."""

    code: bytes
    assembly: str
    shared_bytes: int
    metadata: dict[str, Any]
    assembler: str = ""


def compiled(launch: Launch) -> Binary:
    """Compile for the machine that the launch was recorded for. Raises what Triton raises."""
    source = ASTSource(launch.function, launch.signature, launch.constexprs, launch.attrs)
    kernel = triton.compile(source, target=gpu_target(launch.machine), options=launch.options)
    code, assembly = FORMS[launch.machine.kind]
    text = kernel.asm[assembly]
    return Binary(
        code=kernel.asm[code],
        assembly=text,
        shared_bytes=int(kernel.metadata.shared),
        metadata=kernel.metadata._asdict(),
        assembler=_ptxas(text, kernel.metadata) if launch.machine.kind == "cuda" else "",
    )


def _ptxas(ptx: str, metadata: Any) -> str:
    """What the wheel's ptxas says about registers and spills of this PTX."""
    arch = next(line.split()[1] for line in ptx.splitlines() if line.startswith(".target"))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [triton.knobs.nvidia.ptxas.path, "-v", f"--gpu-name={arch.rstrip(',')}"]
        command += [str(source), "-o", str(Path(folder) / "kernel.cubin")]
        if not metadata.enable_fp_fusion:
            command.append("--fmad=false")
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr
