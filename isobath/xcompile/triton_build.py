"""A recorded launch compiled: the linked binary, its assembly, and what Triton says about it.

    binary = compiled(launch)

For AMD `code` is the hsaco, an ELF that the emulator runs; for NVIDIA the cubin, of which the
wheel's own tools say registers and spills (the driver, which would know, is not here). Triton's
disk cache is used: what is unchanged is not compiled again.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from isobath.xcompile.target import Machine
from isobath.xcompile.triton_record import Launch, gpu_target

FORMS = {"hip": ("hsaco", "amdgcn"), "cuda": ("cubin", "ptx")}
"""(binary, assembly) as Triton names them."""


@dataclass(frozen=True, slots=True)
class Binary:
    """code: hsaco or cubin. assembly: amdgcn or PTX. shared_bytes: dynamic LDS of a workgroup,
    which the ELF does not say. metadata: Triton's record of the compilation. usage: what
    NVIDIA's tools say of a cubin, "" for AMD, whose assembly says it itself."""

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
    nvidia = launch.machine.kind == "cuda"
    return Binary(
        code=kernel.asm[code],
        assembly=kernel.asm[assembly],
        shared_bytes=int(kernel.metadata.shared),
        metadata=kernel.metadata._asdict(),
        usage=_usage(kernel.asm[code], kernel.asm[assembly], launch.machine) if nvidia else "",
    )


def _usage(cubin: bytes, ptx: str, machine: Machine) -> str:
    """What the wheel's cuobjdump says about the resources of this binary and, if it has a stack,
    what ptxas says is spilled to it: the slow path of a sine has an array there, too."""
    with tempfile.TemporaryDirectory() as folder:
        binary, source = Path(folder) / "kernel.cubin", Path(folder) / "kernel.ptx"
        binary.write_bytes(cubin)
        source.write_text(ptx)
        usage = _said(triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(binary))
        if "STACK:0" in usage:
            return usage
        arch = next(line.split()[1] for line in ptx.splitlines() if line.startswith(".target"))
        options = ("-v", f"--gpu-name={arch.rstrip(',')}", "-o", str(binary))
        return usage + _said(get_ptxas(machine.code).path, *options, str(source))


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
