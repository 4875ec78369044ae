"""On gfx942 a row has the same bits in every tile: machine code emulated, MFMA bit for bit.

Operands are random, so that another order of the blocks of K shows in some of the results. Nothing
here ran on an MI300X; that its MFMA rounds as the emulator's does is the emulator's claim, and in
the emulator 16 x 16 and 32 x 32 instructions happen to give these operands the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from isobath.numerics.dialect import FNUZ
from isobath.numerics.fp8 import ACTIVATION_BLOCK, WEIGHT_BLOCK, Fp8Tensor, quantize
from isobath.ops.fp8_linear import triton_kernel as fp8
from isobath.ops.grouped_project import triton_kernel as project
from isobath.ops.linear import triton_kernel as plain
from isobath.ops.measure import tensors
from isobath.ops.shared_expert import triton_kernel as shared
from isobath.ops.tl_gemm import Tile, Tiles
from isobath.xcompile.emulate import GFX942, run_launch
from isobath.xcompile.triton_record import Launch, recording

TOKENS = 17
HIP = "hip"


def emulated(call: Callable[[], object]) -> list[torch.Tensor]:
    """The bytes of what `call` returns when its launches run as gfx942 machine code."""

    def act(launch: Launch) -> None:
        run_launch(launch, exact=True, checks="none")

    with torch.no_grad(), recording(GFX942, act):
        return [t.contiguous().view(torch.uint8) for t in tensors(call())]


def tiles_of(tiles: Tiles) -> list[Tile]:
    return [tile for _, tile in tiles[HIP]]


def agree(calls: list[Callable[[], object]]) -> bool:
    first, *others = (emulated(call) for call in calls)
    return all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def operands(rows: int, width: int) -> tuple[Fp8Tensor, Fp8Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(TOKENS, width, generator=generator)
    weight = torch.randn(rows, width, generator=generator) * width**-0.5
    return quantize(x, FNUZ, ACTIVATION_BLOCK), quantize(weight, FNUZ, WEIGHT_BLOCK)


def test_fp8_linear_gives_the_same_bits_in_every_tile() -> None:
    x, weight = operands(32, 1152)  # a slice of K and the beginning of another
    tiles = tiles_of(fp8.TILES)
    assert agree([lambda t=t: fp8.launch(x, weight, t, t.options(HIP)) for t in tiles])


def test_linear_gives_the_same_bits_in_every_tile() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(TOKENS, 1152, generator=generator).bfloat16()
    weight = torch.randn(32, 1152, generator=generator).bfloat16()
    tiles = tiles_of(plain.TILES)
    assert agree([lambda t=t: plain.launch(x, weight, t, t.options(HIP)) for t in tiles])


def test_grouped_project_gives_the_same_bits_in_every_tile() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(TOKENS, 2, 256, generator=generator).bfloat16()
    weight = quantize(torch.randn(2, 128, 256, generator=generator), FNUZ, WEIGHT_BLOCK)
    tiles = tiles_of(project.TILES)
    assert agree([lambda t=t: project.launch(x, weight, FNUZ, t, t.options(HIP)) for t in tiles])


def test_shared_expert_gives_the_same_bits_narrow_and_wide() -> None:
    x, w13 = operands(512, 256)
    generator = torch.Generator().manual_seed(6)
    w2 = quantize(torch.randn(256, 256, generator=generator) / 16, FNUZ, WEIGHT_BLOCK)

    def way(tile: Tile) -> torch.Tensor:
        options = tile.options(HIP)
        if not tile.pair:
            _, hidden = shared.launch_narrow(x, w13, 10.0, tile, options, quantize=False)
            return shared.launch_down(hidden, w2, tile, options)
        return fp8.fp8_linear(shared.launch_wide(x, w13, 10.0, tile, options), w2)

    assert agree([lambda t=t: way(t) for t in tiles_of(shared.TILES)])
