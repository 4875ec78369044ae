"""GEMM on a CPU whose rows do not depend on how many there are: what makes batch invariance cheap.

Owns the one product that the torch backends multiply activations and weights with. It is oneDNN's:
every element is summed over K, in float32, in an order that depends on K alone, not on the number
of rows, of columns or of threads; in float32 a single row takes another path and is therefore given
a zero row as company. Measured (2026-11-21, AMD EPYC with AVX-512 and its bf16 products, torch
2.13; 1, 2 and 8 threads on 2 cores; 1 to 600 rows, K 64 to 16384, N 3 to 4096): every row
bit-identical, packed or not.

torch.mm and linear go to MKL instead, whose rows differ between 1 to 3 rows and more, and with
several threads at any count that leaves one of them fewer than four. Padding to a multiple of 8
cures that for linear (not for mm with N odd), and is the fallback where torch has no oneDNN.

Decoded FP8 and MXFP4 values are exact in bfloat16, products of two of them in float32, so a bf16
product of quantised operands is exact but for its one rounding at the end, reads half the bytes and
takes half the time. One thread, [640, 256], us at M = 1 / 2 / 16 / 512: bf16 packed 20 / 22 / 37 /
430, float32 packed 36 / 64 / 68 / 851. A CPU whose oneDNN has no bf16 products (AVX2 alone) takes
the same values in float32: the same sums, rounded to bf16 by the caller.

oneDNN generates machine code for every number of rows, half a megabyte each, and keeps all of it (a
part even past the capacity of its cache): a server whose batches have every size grew by hundreds
of megabytes. Rows are therefore filled up with zeros to one of few numbers, four an octave: 31 up
to 512 rows, 8% more rows on average (LOG.md has what was measured).

The two operators are the ones that torch's own compiler emits; they have no public name.
"""

from __future__ import annotations

import torch

_HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()
_HAS_BF16: bool = _HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
_PACKED_FOR = 16
"""Rows that packing is told to expect: any number above 1 chooses the blocked layout."""
_FALLBACK_ROWS = 8
_AN_OCTAVE = 4


def pack(weight: torch.Tensor) -> torch.Tensor:
    """[N, K], float32 or bf16, in the layout that matmul() reads fastest: an opaque tensor."""
    if not _HAS_ONEDNN:
        return weight
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR)
    return packed


def narrow(weight: torch.Tensor) -> torch.Tensor:
    """A float32 matrix as bf16 if that loses nothing and this CPU multiplies it, else as it is."""
    if not _HAS_BF16:
        return weight
    halved = weight.to(torch.bfloat16)
    return halved if torch.equal(halved.float(), weight) else weight


def matmul(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x @ weight^T: [M, K] times [N, K], packed or plain -> [M, N]; same bits either way.

    The weight's dtype, float32 or bf16, is that of the product: x is converted to it, sums are
    float32, and the result is rounded to it once. Row m depends on row m alone.
    """
    rows, x = len(x), x.to(weight.dtype)
    if not _HAS_ONEDNN:
        padded = torch.nn.functional.pad(x, (0, 0, 0, -rows % _FALLBACK_ROWS))
        return torch.nn.functional.linear(padded, weight)[:rows]
    full = filled(rows)
    if full == 1 and x.dtype == torch.float32:
        full = 2
    if full > rows:
        x = torch.nn.functional.pad(x, (0, 0, 0, full - rows))
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight, None, "none", [], ""
    )
    return y[:rows] if full > rows else y


def filled(rows: int) -> int:
    """The number of rows that a product of `rows` is made with: four numbers an octave."""
    step = max(1, (1 << (rows - 1).bit_length()) // (2 * _AN_OCTAVE))
    return -(-rows // step) * step
