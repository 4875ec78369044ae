"""Kernels for what stands around a launch: configurations that do not fit, and tables of
addresses."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


def zeroed(args: dict[str, Any]) -> None:
    """A configuration's hook, as for a kernel that adds to its output."""
    args["out"][...] = 0


def prune(configs: list[Any], args: dict[str, Any], **named: Any) -> list[Any]:
    """Leaves out tiles that the rows do not fill."""
    return [c for c in configs if args["N"] % c.kwargs["B"] == 0]


@triton.autotune(
    configs=[
        triton.Config({"B": 256}, num_warps=4),  # pruned: would write past a row
        triton.Config({"B": 128}, num_warps=32, pre_hook=zeroed),  # more than a workgroup holds
        triton.Config({"B": 32}, num_warps=4, pre_hook=zeroed),  # the kernel refuses
        triton.Config({"B": 64}, num_warps=2, pre_hook=zeroed),
    ],
    key=["N"],
    prune_configs_by={"early_config_prune": prune},
)
@triton.jit
def row_sums(x, out, N, B: tl.constexpr):
    tl.static_assert(B > 32)
    r = tl.program_id(0)
    at = tl.program_id(1) * B + tl.arange(0, B)
    tl.atomic_add(out + r, tl.sum(tl.load(x + r * N + at), 0))


@triton.autotune(
    configs=[
        triton.Config({"BM": 128, "BN": 128, "BK": 128}, num_warps=8),  # 128 KiB of LDS
        triton.Config({"BM": 32, "BN": 32, "BK": 32}, num_warps=4),
    ],
    key=["K"],
)
@triton.jit
def large_tiles(a, b, out, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m, n, k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    m += tl.program_id(0) * BM
    acc = tl.zeros((BM, BN), tl.float32)
    for at in range(0, K, BK):
        left = tl.load(a + m[:, None] * K + at + k[None, :])
        acc = tl.dot(left, tl.load(b + (at + k)[:, None] * BN + n[None, :]), acc)
    tl.store(out + m[:, None] * BN + n[None, :], acc)


@triton.jit
def each_table_entry(tables, sizes, B: tl.constexpr):
    """Doubles every array whose address stands in `tables`."""
    i = tl.program_id(0)
    x = tl.load(tables + i).to(tl.pointer_type(tl.float32))
    at = tl.arange(0, B)
    inside = at < tl.load(sizes + i)
    tl.store(x + at, 2 * tl.load(x + at, mask=inside), mask=inside)


@triton.jit
def differences(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(x + at + 1) - tl.load(x + at))


@triton.jit
def copied(x, out, stride, B: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(x + at * stride))
