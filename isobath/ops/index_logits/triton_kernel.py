"""index_logits on a GPU: keys times the heads of one token, closed, weighted and summed.

A program scores one tile of entries for a few neighbouring tokens, one after the other: those of
one sequence find the keys in the first-level cache. The arithmetic of a token does not know of the
others. Keys are the rows of the product, so that a tile fills the matrix unit with one token's
heads as columns; FP8 codes go in as they are and a key's scale is applied after the sum.
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
    """keys: of one program. warps: of the launch. tokens: of one program in prefill."""

    keys: int
    warps: int
    tokens: int


TILES = {"cuda": Tile(128, 4, 8), "hip": Tile(128, 4, 8), "cpu": Tile(128, 4, 8)}
PLAIN = Tile(32, 4, 8)


@triton.jit
def index_logits_kernel(
    q, weights, cache, table, sequence, visible, out, num_tokens, num_heads, table_width, width,
    ROW: tl.constexpr, D: tl.constexpr, SCALE_AT: tl.constexpr, PAGE: tl.constexpr,
    BH: tl.constexpr, BK: tl.constexpr, TOKENS: tl.constexpr, PLAIN: tl.constexpr,
    FP8: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of TOKENS tokens, tiles of BK entries). q: FP8 codes as uint8 [T, Hi, D], or
    floats if PLAIN. cache: uint8 [rows, ROW]. width: entries of a line of out."""
    first = tl.program_id(1) * BK
    entry = first + tl.arange(0, BK)
    heads, column = tl.arange(0, BH), tl.arange(0, D)
    in_heads = heads < num_heads
    for i in range(TOKENS):
        t = tl.program_id(0).to(tl.int64) * TOKENS + i
        seen = tl.load(visible + t, mask=t < num_tokens, other=0).to(tl.int32)
        if first < seen:
            ok = entry < seen
            pages = table + tl.load(sequence + t) * table_width
            page = tl.load(pages + entry // PAGE, mask=ok, other=0)
            # 1: Triton 3.6 takes this sum for a multiple of PAGE, and would read keys with 16-byte
            # loads that are not aligned.
            rows = tl.multiple_of(page * PAGE + entry % PAGE, 1)
            line = (t * num_heads + heads[None, :]) * D + column[:, None]
            head = tl.load(q + line, mask=in_heads[None, :], other=0)
            at = rows[:, None] * (ROW // 4 if PLAIN else ROW) + column[None, :]
            floats = cache.to(tl.pointer_type(tl.float32), bitcast=True)
            if PLAIN:
                key = tl.load(floats + at, mask=ok[:, None], other=0.0)
                score = tl.dot(key, head.to(tl.float32), input_precision="ieee")
            else:
                key = tl.load(cache + at, mask=ok[:, None], other=0)
                score = tl.dot(key.to(FP8, bitcast=True), head.to(FP8, bitcast=True))
            score = tl.where(score < 0.0, 0.0, score)  # NaN stays
            weight = tl.load(weights + t * num_heads + heads, mask=in_heads, other=0.0)
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
    together = 1 if tokens <= len(pages.table) else tile.tokens
    index_logits_kernel[(-(-tokens // together), -(-capacity // tile.keys))](
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
    )
    return out
