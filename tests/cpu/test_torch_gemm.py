"""The products of the torch backends: rows do not know of each other, and kernels are few."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isobath.ops.torch_gemm import filled, matmul, narrow, pack

ROWS = 512


def resident_kib() -> int:
    """Of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_rows_are_filled_up_to_few_numbers_and_by_a_quarter_at_most() -> None:
    full = [filled(rows) for rows in range(1, ROWS + 1)]
    assert len(set(full)) == 32
    assert all(rows <= more <= 1.25 * rows for rows, more in enumerate(full, 1))
    assert all(filled(more) == more for more in full)


@pytest.mark.parametrize("narrowed", [False, True])
def test_row_of_a_product_does_not_depend_on_their_number(narrowed: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*size, generator=draw) for size in ((40, 96), (56, 96)))
    weight = pack(narrow(weight.bfloat16().float()) if narrowed else weight)
    whole = matmul(x, weight)
    assert whole.shape == (40, 56)
    for rows in range(1, 40):
        assert torch.equal(matmul(x[-rows:], weight), whole[-rows:])


def test_products_of_every_number_of_rows_keep_few_kernels() -> None:
    """A number of rows of its own costs half a megabyte: 256 MB here, were there a kernel each, and
    16 MB for 32 of them. The bound is four times that."""
    weight, x = pack(torch.ones(256, 256)), torch.ones(ROWS, 256)
    before = resident_kib()
    for rows in range(1, ROWS + 1):
        matmul(x[:rows], weight)
    assert resident_kib() - before < 64 << 10
