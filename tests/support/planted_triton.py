"""Kernels of the tests' own and their launchers: good ones, and one for each rule to break."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(x, y, out, n, scale, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < n
    tl.store(out + at, tl.load(x + at, inside) + tl.load(y + at, inside) * scale, inside)


@triton.jit
def add_under_another_name(x, y, out, n, scale, SIZE: tl.constexpr):
    """The same instructions from another line, with a comment."""
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    # Nothing past the end is touched.
    inside = at < n
    tl.store(out + at, tl.load(x + at, inside) + tl.load(y + at, inside) * scale, inside)


@triton.jit
def add_with_a_clamp(x, y, out, n, scale, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < n
    total = tl.load(x + at, inside) + tl.load(y + at, inside) * scale
    tl.store(out + at, tl.maximum(total, 0.0), inside)


@triton.jit
def product_kernel(x, y, out, K, M: tl.constexpr, N: tl.constexpr, STEP: tl.constexpr):
    """One program: float32 [M, N] = x [M, K] times y [K, N]."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, STEP)
    acc = tl.zeros((M, N), tl.float32)
    for start in range(0, K, STEP):
        left = tl.load(x + m[:, None] * K + start + k[None, :])
        right = tl.load(y + (start + k[:, None]) * N + n[None, :])
        acc += tl.dot(left, right)
    tl.store(out + m[:, None] * N + n[None, :], acc)


@triton.jit
def ill_typed_kernel(x, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, tl.load(x + at).to(tl.int8, bitcast=True))


def add(x: torch.Tensor, y: torch.Tensor, kernel=add_kernel, *, scale: float = 2.0) -> torch.Tensor:
    out, n = torch.empty_like(x), x.numel()
    kernel[lambda meta: (triton.cdiv(n, meta["SIZE"]),)](x, y, out, n, scale, SIZE=256, num_warps=2)
    return out


def product(
    x: torch.Tensor, y: torch.Tensor, *, step: int, warps: int = 4, stages: int = 2
) -> torch.Tensor:
    (m, k), n = x.shape, y.shape[1]
    out = torch.empty(m, n, device=x.device)
    product_kernel[(1,)](x, y, out, k, M=m, N=n, STEP=step, num_warps=warps, num_stages=stages)
    return out


def ill_typed(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=torch.int8)
    ill_typed_kernel[(1,)](x, out, SIZE=x.numel())
    return out
