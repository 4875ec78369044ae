"""What stands around a launch: which configuration of an @autotune is run, and arrays that a kernel
reaches through addresses in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isobath.emulator import OutOfBounds, launch
from tests.support import triton_launches as kernels


def whole(rows: int, columns: int) -> np.ndarray:
    """Small integers: every sum of them is exact."""
    return np.random.default_rng(rows).integers(-9, 9, (rows, columns)).astype(np.float32)


def test_a_configuration_is_chosen_as_a_tuner_would() -> None:
    """Pruned, refused by the kernel or too large for a workgroup: passed over. Its hook runs."""
    x, out = whole(3, 128), np.full(3, 99, np.float32)
    run = launch(kernels.row_sums, lambda m: (3, 128 // m["B"]), x, out, 128)
    assert run.num_warps == 2 and run.grid == (3, 2, 1)
    assert np.array_equal(out, x.sum(1))


def test_named_values_are_not_tuned() -> None:
    x, out = whole(3, 128), np.zeros(3, np.float32)
    run = launch(kernels.row_sums, (3, 1), x, out, 128, B=128)
    assert run.num_warps == 4 and np.array_equal(out, x.sum(1))


def test_a_configuration_with_too_much_lds_is_passed_over() -> None:
    a, b, out = whole(32, 128), whole(128, 32), np.zeros((32, 32), np.float32)
    run = launch(kernels.large_tiles, lambda m: (32 // m["BM"],), a, b, out, 128)
    assert run.lds_bytes <= 65536 and np.array_equal(out, a @ b)


@pytest.mark.parametrize("checks", ["all", "none"])
def test_addresses_in_memory_lead_to_reachable_arrays(checks: str) -> None:
    arrays = [torch.arange(n, dtype=torch.float32) for n in (5, 64, 33)]
    sizes = torch.tensor([a.numel() for a in arrays])
    tables = torch.tensor([a.data_ptr() for a in arrays])
    launch(kernels.each_table_entry, 3, tables, sizes, B=64, reachable=arrays, checks=checks)
    assert all(torch.equal(a, 2.0 * torch.arange(len(a))) for a in arrays)


def test_the_end_of_a_reachable_array_is_its_end() -> None:
    arrays = [torch.zeros(5), torch.zeros(64)]
    tables, sizes = torch.tensor([a.data_ptr() for a in arrays]), torch.tensor([5, 65])
    with pytest.raises(OutOfBounds):
        launch(kernels.each_table_entry, 2, tables, sizes, B=128, reachable=arrays)


def test_an_argument_that_is_a_part_ends_where_it_ends_unless_the_whole_is_named() -> None:
    x, out = np.arange(65, dtype=np.float32), np.zeros(64, np.float32)
    for part in (x[:64], torch.from_numpy(x)[:64]):
        with pytest.raises(OutOfBounds, match="part of a larger array, which reachable= can name"):
            launch(kernels.differences, 1, part, out, B=64)
    with pytest.raises(OutOfBounds, match=r"past its end\n"):
        launch(kernels.differences, 1, x[:64].copy(), out, B=64)
    launch(kernels.differences, 1, x[:64], out, B=64, reachable=[x])
    assert np.array_equal(out, np.ones(64))


class Backwards:
    """A tensor read from its end, as libraries wrap one: torch has no negative strides."""

    def __init__(self, base: torch.Tensor) -> None:
        self.dtype, self.shape, self.device, self.base = base.dtype, base.shape, base.device, base

    def data_ptr(self) -> int:
        return self.base.data_ptr() + (self.base.numel() - 1) * self.base.element_size()

    def element_size(self) -> int:
        return self.base.element_size()

    def stride(self) -> tuple[int, ...]:
        return (-1,)

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.base.untyped_storage()


def test_offsets_before_an_address_are_not_taken_for_far_ones() -> None:
    """Buffer instructions read an offset as unsigned: only for arrays that start at the address."""
    x = torch.arange(64.0)
    for argument in (Backwards(x), x.numpy()[::-1]):
        out = torch.zeros(64)
        launch(kernels.copied, 1, argument, out, -1, B=64)
        assert torch.equal(out, x.flip(0))


def test_an_array_that_nobody_named_is_out_of_bounds() -> None:
    hidden = torch.zeros(5)
    tables, sizes = torch.tensor([hidden.data_ptr()]), torch.tensor([5])
    with pytest.raises(OutOfBounds):
        launch(kernels.each_table_entry, 1, tables, sizes, B=128)
