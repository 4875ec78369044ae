"""index_logits on a GPU: keys times the heads of one token, closed, weighted and summed.

A program scores one tile of entries for a few neighbouring tokens, one after the other: those of
one sequence find the keys in the first-level cache. In decode, where a token has a sequence of its
own, it scores a few tiles of one token, whose heads it keeps. The arithmetic of a token does not
know of the others. Keys are the rows of the product, so that a tile fills the matrix unit with one
token's heads as columns; FP8 codes go in as they are and a key's scale is applied after the sum.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from isobath.cache.view import CacheView, Pages
from isobath.numerics.dialect import dialect_of
from isobath.ops.tl_common import fp8_of, pow2, target_of


@dataclass(frozen=True, slots=True)
class Tile:
    """keys: of one tile. warps: of the launch. tokens: of one program in prefill. tiles: of one
    program in decode at most, while there are `programs` of them: more than a GPU runs at a time.
    registers: of a thread in decode on cuda, where more of them would leave room for fewer
    programs; 0: no limit."""

    keys: int
    warps: int
    tokens: int = 8
    tiles: int = 4
    programs: int = 2048
    registers: int = 0


TILES = {
    "cuda": Tile(128, 4, registers=128),
    "hip": Tile(128, 4),
    "cpu": Tile(128, 4, programs=1),
}
PLAIN = Tile(32, 4)
"""One H100, 2026-11-27, us: 1,024 tokens of 178 entries 24.5 with a tile a program of 166
registers, 22.0 of 128, 20.7 with two tiles; of 1,024 entries 76.1, 72.9, 72.5, with four tiles
68.4; 64 of 4,096 entries 23.4, 23.2, 21.8, 21.0. Slower: 64 keys, 8 warps, keys on their way by
cp.async."""


@triton.jit
def index_logits_kernel(
    q, weights, cache, table, sequence, visible, out, num_tokens, num_heads, table_width, width,
    span,
    ROW: tl.constexpr, D: tl.constexpr, SCALE_AT: tl.constexpr, PAGE: tl.constexpr,
    BH: tl.constexpr, BK: tl.constexpr, TOKENS: tl.constexpr, PLAIN: tl.constexpr,
    FP8: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of TOKENS tokens, spans of entries, each of whole tiles of BK). q: FP8 codes as
    uint8 [T, Hi, D], or floats if PLAIN. cache: uint8 [rows, ROW]. width: entries of a line of out.
    """
    start = tl.program_id(1) * span
    heads, column = tl.arange(0, BH), tl.arange(0, D)
    in_heads = heads < num_heads
    floats = cache.to(tl.pointer_type(tl.float32), bitcast=True)
    for i in range(TOKENS):
        t = tl.program_id(0).to(tl.int64) * TOKENS + i
        seen = tl.load(visible + t, mask=t < num_tokens, other=0).to(tl.int32)
        if start < seen:
            pages = table + tl.load(sequence + t) * table_width
            line = (t * num_heads + heads[None, :]) * D + column[:, None]
            head = tl.load(q + line, mask=in_heads[None, :], other=0)
            weight = tl.load(weights + t * num_heads + heads, mask=in_heads, other=0.0)
            for first in tl.range(start, tl.minimum(seen, start + span), BK, num_stages=1):
                entry = first + tl.arange(0, BK)
                ok = entry < seen
                page = tl.load(pages + entry // PAGE, mask=ok, other=0)
                # 1: Triton 3.6 takes this sum for a multiple of PAGE, and would read keys with
                # 16-byte loads that are not aligned.
                rows = tl.multiple_of(page * PAGE + entry % PAGE, 1)
                at = rows[:, None] * (ROW // 4 if PLAIN else ROW) + column[None, :]
                if PLAIN:
                    key = tl.load(floats + at, mask=ok[:, None], other=0.0)
                    score = tl.dot(key, head.to(tl.float32), input_precision="ieee")
                else:
                    key = tl.load(cache + at, mask=ok[:, None], other=0)
                    score = tl.dot(key.to(FP8, bitcast=True), head.to(FP8, bitcast=True))
                score = tl.where(score < 0.0, 0.0, score)  # NaN stays
                total = tl.sum(score * weight[None, :], 1)
                if not PLAIN:
                    scale = floats + rows * (ROW // 4) + SCALE_AT // 4
                    total *= tl.load(scale, mask=ok, other=0.0)
                tl.store(out + t * width + entry, total, mask=ok)


def index_logits(
    q: torch.Tensor,
    weights: torch.Tensor,
    cache: CacheView,
    *,
    pages: Pages,
    sequence: torch.Tensor,
    visible: torch.Tensor,
) -> torch.Tensor:
    tokens, heads, width = q.shape
    layout, capacity = cache.layout, pages.capacity
    out = torch.empty(tokens, capacity, dtype=torch.float32, device=q.device)
    if tokens == 0 or capacity == 0:
        return out
    assert q.is_contiguous() and weights.is_contiguous(), (q.stride(), weights.stride())
    if not layout.plain:
        cache.expect(dialect_of(q.dtype), op="index_logits")
    tile = PLAIN if layout.plain else TILES[target_of(q).kind]
    tiles = -(-capacity // tile.keys)
    together, each, registers = tile.tokens, 1, 0
    if tokens <= len(pages.table):  # decode
        together, registers = 1, tile.registers
        each = min(max(tokens * tiles // tile.programs, 1), tile.tiles)
    index_logits_kernel[(-(-tokens // together), -(-tiles // each))](
        q if layout.plain else q.view(torch.uint8),
        weights,
        cache.bytes,
        pages.table,
        sequence,
        visible,
        out,
        tokens,
        heads,
        pages.table.stride(0),
        capacity,
        each * tile.keys,
        ROW=layout.row_bytes,
        D=width,
        SCALE_AT=layout.scale_offset,
        PAGE=pages.page_rows,
        BH=max(16, pow2(heads)),
        BK=tile.keys,
        TOKENS=together,
        PLAIN=layout.plain,
        FP8=fp8_of(cache.dialect)["FP8"],
        num_warps=tile.warps,
        **({"maxnreg": registers} if registers else {}),
    )
    return out
