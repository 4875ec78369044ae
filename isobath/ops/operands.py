"""Operands for cases: seeded values, and quantised tensors that remember their source.

The reference on a case's remembered sources gives the result that the number format departs from,
so that a format's error can be reported beside a kernel's. Backends see ordinary quantised tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch

from isobath.numerics import fp8, mxfp4
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.ops.contract import Arguments


@dataclass(frozen=True, slots=True)
class RoundedFp8(Fp8Tensor):
    """An Fp8Tensor with its source, the float32 matrix it was quantised from."""

    source: torch.Tensor


@dataclass(frozen=True, slots=True)
class RoundedMxfp4(Mxfp4Tensor):
    """An Mxfp4Tensor with its source, the float32 matrix it was quantised from."""

    source: torch.Tensor


def round_fp8(x: torch.Tensor, dialect: Dialect, quant_block: tuple[int, int]) -> RoundedFp8:
    """fp8.quantize(x) that remembers x."""
    q = fp8.quantize(x, dialect, quant_block)
    return RoundedFp8(q.data, q.scale, q.dialect, q.quant_block, x.float())


def round_mxfp4(x: torch.Tensor) -> RoundedMxfp4:
    """mxfp4.quantize(x) that remembers x."""
    q = mxfp4.quantize(x)
    return RoundedMxfp4(q.packed, q.scale, x.float())


def unrounded(args: Arguments) -> Arguments:
    """The arguments with each operand that remembers its source replaced by that source."""
    return {name: _source(value) for name, value in args.items()}


def normal(
    generator: torch.Generator,
    *shape: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    std: float = 1.0,
) -> torch.Tensor:
    """Normal values drawn on the CPU in float32, so that every device and dtype sees the same."""
    return (torch.randn(shape, generator=generator) * std).to(device, dtype)


def uniform(generator: torch.Generator, *shape: int, device: torch.device) -> torch.Tensor:
    """float32 values in [0, 1), drawn on the CPU."""
    return torch.rand(shape, generator=generator).to(device)


def lines_apart(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """An int64 table [S, P] on `device` as a view of a wider one, as static metadata passes it."""
    wide = torch.zeros(len(table), table.shape[1] + 3, dtype=table.dtype, device=device)
    wide[:, : table.shape[1]] = table.to(device)
    return wide[:, : table.shape[1]]


def _source(value: Any) -> Any:
    if isinstance(value, RoundedFp8 | RoundedMxfp4):
        return value.source
    if not is_dataclass(value) or isinstance(value, type):
        return value
    old = {f.name: getattr(value, f.name) for f in fields(value)}
    new = {name: _source(item) for name, item in old.items()}
    changed = any(new[name] is not old[name] for name in old)
    return replace(value, **new) if changed else value
