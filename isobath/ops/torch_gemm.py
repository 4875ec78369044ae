"""GEMM on a CPU whose rows do not depend on how many there are: what makes batch invariance cheap.

Owns the one product that the torch backends multiply activations and weights with, float32 in and
out. It is oneDNN's: from two rows on, every element is summed over K in an order that depends on K
alone, not on the number of rows, of columns or of threads; a single row takes another path and is
therefore given a zero row as company. Measured (2026-11-21, AMD EPYC with AVX-512, torch 2.13; 1,
2 and 8 threads on 2 cores; 1 to 600 rows, K 64 to 16384, N 3 to 4096): every row bit-identical.

torch.mm and linear go to MKL instead, whose rows differ between 1 to 3 rows and more, and with
several threads at any count that leaves one of them fewer than four. Padding to a multiple of 8
cures that for linear (not for mm with N odd), and is the fallback where torch has no oneDNN; a
padded row costs more than oneDNN's single one. One thread, [256, 640], us, M = 1 / 2 / 16 / 512:
MKL 17 / - / 80 / 2150, padded to 8 rows 49 / 49 / 80 / 2150, oneDNN packed 31 / 31 / 50 / 810.

The two operators are the ones that torch's own compiler emits; they have no public name.
"""

from __future__ import annotations

import torch

_HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()
_PACKED_FOR = 16
"""Rows that packing is told to expect: any number above 1 chooses the blocked layout."""
_FALLBACK_ROWS = 8


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Float32 [N, K] in the layout that matmul() reads fastest: an opaque tensor of that shape."""
    if not _HAS_ONEDNN:
        return weight
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR)
    return packed


def matmul(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x @ weight^T: float32 [M, K] times [N, K], packed or plain -> [M, N]; same bits either way.

    Row m depends on row m alone, whatever M, N and the number of threads.
    """
    rows = len(x)
    if not _HAS_ONEDNN:
        padded = torch.nn.functional.pad(x, (0, 0, 0, -rows % _FALLBACK_ROWS))
        return torch.nn.functional.linear(padded, weight)[:rows]
    if rows == 1:
        x = torch.cat((x, torch.zeros_like(x)))
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight, None, "none", [], ""
    )
    return y[:rows] if rows == 1 else y
