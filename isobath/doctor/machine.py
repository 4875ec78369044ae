"""What this machine is, and the ceilings that kernels are held against: measured, not quoted."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

from isobath import __version__
from isobath.ops.contract import Work
from isobath.ops.replay import time_calls
from isobath.target import Target

COPY_BYTES, SIDE = 1 << 30, 8192
CPU_COPY_BYTES, CPU_SIDE = 1 << 27, 1024
BUDGET_S = 0.2


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The best that this machine did here. copy: bytes a second, read and written. bf16, fp8:
    operations a second of a large matrix product, None where torch has none."""

    copy: float
    bf16: float | None
    fp8: float | None

    def share(self, work: Work, us: float) -> float:
        """The part of the ceiling that a call reached: by bytes or by operations, whichever needs
        longer at full speed."""
        peak = self.fp8 if work.fp8 else self.bf16
        needed = max(work.nbytes / self.copy, work.flops / peak if peak else 0.0)
        return needed / (us * 1e-6)


def facts(target: Target) -> dict[str, Any]:
    """What a bug report needs to know about the machine."""
    return {
        "device": target.name,
        "arch": target.arch,
        "dialect": target.dialect.name,
        "memory_bytes": target.memory_bytes,
        "isobath": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "driver": _driver(target),
        "runtime": torch.version.hip or torch.version.cuda,
    }


def ceilings(target: Target) -> Ceilings:
    """Measure copy, bf16 and FP8 (in the device's dialect) on large operands."""
    device, on_cpu = target.device, target.kind == "cpu"
    nbytes, side = (CPU_COPY_BYTES, CPU_SIDE) if on_cpu else (COPY_BYTES, SIDE)
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    flops = 2 * side**3
    bf16_us = time_calls(lambda: a @ b.T, device, BUDGET_S).p10
    fp8_us = None if on_cpu else _fp8_us(a, b, target)
    return Ceilings(
        copy=2 * nbytes / (_copy_us(nbytes, device) * 1e-6),
        bf16=flops / (bf16_us * 1e-6),
        fp8=flops / (fp8_us * 1e-6) if fp8_us else None,
    )


def _copy_us(nbytes: int, device: torch.device) -> float:
    source = torch.ones(nbytes, dtype=torch.uint8, device=device)
    copied = torch.empty_like(source)
    return time_calls(lambda: copied.copy_(source), device, BUDGET_S).p10


def _fp8_us(a: torch.Tensor, b: torch.Tensor, target: Target) -> float | None:
    """A product of FP8 matrices with one scale each; None where this torch or GPU has none."""
    left, right = (t.to(target.dialect.dtype) for t in (a, b))
    one = torch.ones((), device=a.device)
    multiply: Callable[..., Any] = torch._scaled_mm

    def call() -> Any:
        return multiply(left, right.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    try:
        return time_calls(call, a.device, BUDGET_S).p10
    except RuntimeError:
        return None


def _driver(target: Target) -> str | None:
    """The GPU driver's version as its own tool tells it; None on a CPU or without the tool."""
    commands = {
        "cuda": ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        "rocm": ["cat", "/sys/module/amdgpu/version"],
    }
    if target.kind not in commands:
        return None
    try:
        done = subprocess.run(
            commands[target.kind], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
