"""The ceilings that kernels are held against: measured on this machine, not quoted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

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


def ceilings(target: Target) -> Ceilings:
    """Measure copy, bf16 and FP8 (in the device's dialect) on large operands."""
    device, on_cpu = target.device, target.kind == "cpu"
    side = CPU_SIDE if on_cpu else SIDE
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    flops = 2 * side**3
    bf16_us = time_calls(lambda: a @ b.T, device, BUDGET_S).p10
    fp8_us = None if on_cpu else _fp8_us(a, b, target)
    return Ceilings(
        copy=copy_rate(device),
        bf16=flops / (bf16_us * 1e-6),
        fp8=flops / (fp8_us * 1e-6) if fp8_us else None,
    )


def copy_rate(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy: the best tenth."""
    nbytes = CPU_COPY_BYTES if device.type == "cpu" else COPY_BYTES
    source = torch.ones(nbytes, dtype=torch.uint8, device=device)
    copied = torch.empty_like(source)
    us = time_calls(lambda: copied.copy_(source), device, BUDGET_S).p10
    return 2 * nbytes / (us * 1e-6)


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
