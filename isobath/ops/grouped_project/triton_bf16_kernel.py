"""grouped_project in Triton with weights decoded to bf16 once at load: the same bits, sooner.

Decoding FP8 in the loop keeps the matrix units waiting where many tokens share a weight. With bf16
weights beside the FP8 ones (three bytes a value) many tokens read the former; few tokens, whose
time is that of reading weights, the latter. Products and their order are the same.
"""

from __future__ import annotations

import torch

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.grouped_project.triton_kernel import grouped_project as narrow
from isobath.ops.grouped_project.triton_kernel import launch
from isobath.ops.grouped_project.widened import Widened
from isobath.ops.grouped_project.widened import widen as prepare
from isobath.ops.tl_common import target_of
from isobath.ops.tl_gemm import Tile, Tiles, choose

__all__ = ["grouped_project", "prepare"]

FEW_TOKENS = {"cuda": 64, "hip": 64, "cpu": 4}
"""Up to this many tokens read FP8. cuda: measured on an H100, 2026-11-26, one run of graph replays,
FP8 / bf16 in us: 64 tokens 32.9 / 32.9, 128 54.8 / 33.8, 256 55.9 / 37.4, 1,024 210 / 122, 8,192
1,663 / 1,014; cuBLAS at 1,024: 97, with other bits. hip: predicted."""

TILES: Tiles = {
    "cuda": (
        (128, Tile(64, 128, 4, 4, swap=True)),
        (256, Tile(128, 128, 8, 5, swap=True)),
        (0, Tile(128, 128, 8, 4, swap=True)),
    ),
    "hip": ((0, Tile(64, 128, 8, 2, swap=True)),),
    "cpu": ((0, Tile(32, 128, 4, 1, swap=True)),),
}


def grouped_project(
    x: torch.Tensor, weight: Widened, *, dialect: Dialect | None
) -> Fp8Tensor | torch.Tensor:
    few = len(x) <= FEW_TOKENS[target_of(x).kind]
    if few or dialect is None or weight.product_dtype(x) != torch.bfloat16:
        return narrow(x, weight.given, dialect=dialect)
    return launch(x, weight.values, dialect, *choose(TILES, x, len(x)))
