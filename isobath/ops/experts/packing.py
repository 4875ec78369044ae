"""MXFP4 expert matrices as the Triton kernels read them: repacked once, at load.

A tile of R rows by 128 of K is one contiguous run of 16 R words, and its group scales one of 4 R
bytes beside it; a program streams both from end to end. Eight codes share a 32-bit word, four in
each half, their bits placed so that one shift and one mask bring three of the four to where bf16
has sign, low exponent and high mantissa bits. Such a bf16 is the code's value times 2^-126, the
subnormal 0.5 included; one multiplication by a power of two then gives the weight, exactly. Which
codes share a word is the lane order of the matrix instruction, so registers filled from memory are
its operand as they stand: LANES "wgmma" for sm_90, "mfma" for gfx942.

Code 8 (-0) is written as 0, so the values are those of the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.errors import NumericsError
from isobath.numerics import ue8m0
from isobath.numerics.mxfp4 import GROUP, Mxfp4Tensor, unpack

TILE = 128
"""Rows and K of a tile: the quant block of activations, and of the hidden vector."""
PAIRED = 2 * TILE
"""Rows of a tile of w13: 128 of w1, then the same of w3, which one program multiplies."""
CODES_PER_WORD = 8
LANES = ("wgmma", "mfma")
_BITS = ((15, 8, 7, 6), (12, 5, 4, 3), (9, 2, 1, 0), (14, 11, 10, 13))
"""Where the i-th code of a half word has its sign, two exponent bits and mantissa bit."""
_WIDENED = 126
"""A widened code is its value times 2**-126."""
_LARGEST = 254


@dataclass(frozen=True, slots=True)
class Packed:
    """One matrix an expert, [E, N, K], in tiles.

    words: int32 [E, N / R, K / 128, 16 R]. scale: uint8 [E, N / R, K / 128, 4 R], for each row its
    four groups' exponents f. A weight is (its widened code times 2**(f - 127)) times
    `lift`, a power of two that is 1 unless some scale is above 2. f is 255 for a NaN scale, which a
    checkpoint's reader refuses. lanes: see LANES.
    """

    words: torch.Tensor
    scale: torch.Tensor
    lift: float
    lanes: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(E, N, K)."""
        experts, tiles, blocks, words = self.words.shape
        return experts, tiles * words * CODES_PER_WORD // TILE, blocks * TILE

    def nbytes(self) -> int:
        return 4 * self.words.numel() + self.scale.numel()


def pack(weight: Mxfp4Tensor, lanes: str, *, paired: bool) -> Packed:
    """Repack [E, N, K]; N and K multiples of 128. Expert by expert, to need little memory. paired:
    the rows are those of w1, then those of w3.

    Raises NumericsError for other shapes.
    """
    assert lanes in LANES, lanes
    (experts, n, k), rows = weight.shape, PAIRED if paired else TILE
    if n % rows or k % TILE:
        raise NumericsError(
            f"experts: matrices [{experts}, N, K], N a multiple of {rows} and K of {TILE}",
            found=f"N {n}, K {k}",
            effect="tiles would overlap, and weights be read twice",
            do="bind experts=torch for this model",
        )
    tiles, device = (experts, n // rows, k // TILE), weight.packed.device
    word_count, group_count = rows * TILE // CODES_PER_WORD, rows * TILE // GROUP
    words = torch.empty(*tiles, word_count, dtype=torch.int32, device=device)
    scale = torch.empty(*tiles, group_count, dtype=torch.uint8, device=device)
    raised = _excess(weight)
    for expert in range(experts):
        packed, exponents = weight.packed[expert], weight.scale[expert]
        if paired:
            packed, exponents = _by_turns(packed), _by_turns(exponents)
        words[expert] = _words(unpack(packed), lanes, rows)
        scale[expert] = _scale(exponents, raised, rows)
    return Packed(words, scale, 2.0**raised, lanes)


def random_packed(
    experts: int,
    n: int,
    k: int,
    lanes: str,
    generator: torch.Generator,
    *,
    paired: bool,
) -> Packed:
    """Random weights, built on the generator's device and already packed: every code is as likely
    as any other, and scales give the rows of a product the size of its input. Code 8 may occur."""
    rows, device = PAIRED if paired else TILE, generator.device
    tiles, word_count = (experts, n // rows, k // TILE), rows * TILE // CODES_PER_WORD
    words = torch.empty(*tiles, word_count, dtype=torch.int32, device=device)
    words.random_(-(2**31), 2**31 - 1, generator=generator)
    # codes' mean square is 8.6: a scale near (8.6 K)^-0.5, a power of two
    exponent = _WIDENED + ue8m0.BIAS + round(-0.5 * torch.tensor(8.6 * k).log2().item())
    scale = torch.full((*tiles, rows * TILE // GROUP), exponent, dtype=torch.uint8, device=device)
    return Packed(words, scale, 1.0, lanes)


def _excess(weight: Mxfp4Tensor) -> int:
    """Binades by which the largest scale is too large for the multiplier."""
    if not weight.scale.numel():
        return 0
    scale = weight.scale
    largest = int(torch.where(scale == ue8m0.NAN_BYTE, 0, scale).max())
    return max(0, largest + _WIDENED - _LARGEST)


def _by_turns(rows: torch.Tensor) -> torch.Tensor:
    """[2 * I, ...], w1 then w3 -> 128 rows of w1, the same of w3, the next 128 of w1, ..."""
    return rows.unflatten(0, (2, -1, TILE)).transpose(0, 1).reshape(rows.shape)


def _words(codes: torch.Tensor, lanes: str, rows: int) -> torch.Tensor:
    """uint8 codes [N, K] -> int32 [N / R, K / 128, 16 R]."""
    n, k = codes.shape
    halves = _half_words(codes.device)
    if lanes == "wgmma":  # k = 32 q + 16 i0 + 8 i1 + 2 c + h; a thread holds one c of every q
        split = codes.view(n // rows, rows, k // TILE, 4, 2, 2, 4, 2)
        split = split.permute(0, 2, 1, 6, 3, 4, 5, 7)  # -> n tile, k tile, row, c, q, i0, i1, h
    else:  # k = 8 j + 4 i0 + 2 i1 + h
        split = codes.view(n // rows, rows, k // TILE, 16, 2, 2, 2).transpose(1, 2)
    split = split.reshape(n // rows, k // TILE, rows * TILE // CODES_PER_WORD, 4, 2)
    words = torch.zeros(split.shape[:3], dtype=torch.int32, device=codes.device)
    for i in range(4):
        for half in range(2):
            words |= halves[i][split[..., i, half].int()] << (16 * half)
    return words


def _half_words(device: torch.device) -> list[torch.Tensor]:
    """For each place in a half word, the bits of every code: int32 [16]. Code 8 has none."""
    tables = []
    for places in _BITS:
        bits = [
            sum(((code >> (3 - i)) & 1) << place for i, place in enumerate(places))
            for code in range(16)
        ]
        bits[8] = 0
        tables.append(torch.tensor(bits, dtype=torch.int32, device=device))
    return tables


def _scale(scale: torch.Tensor, raised: int, rows: int) -> torch.Tensor:
    """UE8M0 bytes [N, K / 32] -> multiplier exponents uint8 [N / R, K / 128, 4 R]."""
    n, groups = scale.shape
    blocks = groups * GROUP // TILE
    shifted = (scale.int() + (_WIDENED - raised)).clamp_(1, _LARGEST)
    exponents = torch.where(scale == ue8m0.NAN_BYTE, 255, shifted).to(torch.uint8)
    tiled = exponents.view(n // rows, rows, blocks, TILE // GROUP).transpose(1, 2)
    return tiled.reshape(n // rows, blocks, -1)
