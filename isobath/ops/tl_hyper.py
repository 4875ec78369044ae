"""Hyper-connections in Triton, first half: one pass over the streams. tl_hyper_token.py is the
second; every hyper_* op is a choice of steps of the two.

A block's output goes into the streams, and in the same pass the rounded streams are projected on
the mixer's rows and squared. A program owns BLOCK_T tokens and one slice of the width, and leaves
float32 partial sums [splits, T, N]: columns 0 .. R - 1 are the projections, column N - 1 the sum of
squares.

Slices, tiles and warps depend on the width and the machine, never on the number of tokens, so a
token's bits do not depend on its neighbours; and the ops that share a step share its bits.

The mixer's float32 rows are kept as three bf16 pieces whose sum is exact. bf16 streams use as many
pieces as `Tiles` says: two leave 2^-18 of a weight, as random as the float32 sum's own rounding
(2^-24 * sqrt(16384) = 2^-17 at V4-Flash's width). float32 streams use the sum of all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import pow2, target_of

_PIECES = 3


@dataclass(frozen=True, slots=True)
class Tiles:
    """tokens, depth: of a stream_kernel program's step. splits: slices of the width. warps, stages:
    of stream_kernel. pieces: bf16 pieces of a weight that bf16 streams are multiplied by.
    token_warps: of token_kernel. mix_tokens: tokens of one Sinkhorn program. registers: cap of
    stream_kernel's, on cuda only; 0: none."""

    tokens: int = 32
    depth: int = 64
    splits: int = 16
    warps: int = 4
    stages: int = 2
    pieces: int = 2
    token_warps: int = 8
    mix_tokens: int = 16
    registers: int = 0


TILES = {
    "cuda": Tiles(tokens=16, stages=1),
    "hip": Tiles(tokens=16, stages=1, token_warps=4),
    "cpu": Tiles(tokens=16),
}
"""By launch target. Predicted from registers and shared memory, not measured."""


@dataclass(frozen=True, slots=True)
class Partials:
    """sums: float32 [splits, T, N], see the module. width: of one stream. tiles: by which they were
    made, and by which token_kernel goes on."""

    sums: torch.Tensor
    width: int
    tiles: Tiles


def split_weight(fn: torch.Tensor) -> torch.Tensor:
    """float32 [R, K] -> bf16 [3, R, K] pieces, largest first, whose float32 sum is exact."""
    pieces, rest = [], fn
    for _ in range(_PIECES):
        pieces.append(rest.to(torch.bfloat16))
        rest = rest - pieces[-1].float()
    return torch.stack(pieces)


@triton.jit
def project(values, from_ptr, mask, PIECE: tl.constexpr, acc, PIECES: tl.constexpr):
    """acc [T, N] += values [T, n] times the mixer's rows at from_ptr [n, N], zero where not `mask`.
    PIECE: elements from one of a weight's pieces to the next."""
    if values.dtype == tl.float32:
        weight = tl.load(from_ptr, mask=mask, other=0.0).to(tl.float32)
        for piece in tl.static_range(1, 3):
            weight += tl.load(from_ptr + piece * PIECE, mask=mask, other=0.0).to(tl.float32)
        acc = tl.dot(values, weight, acc, input_precision="ieee")
    else:
        for piece in tl.static_range(PIECES):
            weight = tl.load(from_ptr + piece * PIECE, mask=mask, other=0.0)
            acc = tl.dot(values, weight, acc)
    return acc


@triton.jit(do_not_specialize=["num_tokens"])
def stream_kernel(
    y_ptr,
    streams_ptr,
    post_ptr,
    comb_ptr,
    fn_ptr,
    out_ptr,
    partial_ptr,
    num_tokens,
    WIDTH: tl.constexpr,
    EXPAND: tl.constexpr,
    PROJECT: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One slice of the width for BLOCK_T tokens; see the module. Grid: (splits, token blocks).

    y: [T, D]. streams, out: [T, S, D]. post: [T, S]. comb: [T, S, S]. fn: bf16 [3, R, S * D].
    partial: float32 [splits, T, N]. All contiguous; out only with EXPAND, partial with PROJECT.
    """
    split = tl.program_id(0)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    live = token < num_tokens
    row = token.to(tl.int64)
    posts = ()
    combs = ()
    if EXPAND:
        for k in tl.static_range(S):
            posts = posts + (tl.load(post_ptr + row * S + k, mask=live, other=0.0),)
            for j in tl.static_range(S):
                from_ptr = comb_ptr + row * (S * S) + j * S + k
                combs = combs + (tl.load(from_ptr, mask=live, other=0.0),)
    acc = tl.zeros([BLOCK_T, N], tl.float32)
    squares = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    column = tl.arange(0, N)
    steps: tl.constexpr = tl.cdiv(WIDTH, SPLITS * BLOCK_D)
    for step in range(steps):
        d = (split * steps + step) * BLOCK_D + tl.arange(0, BLOCK_D)
        mask = live[:, None]
        weight_mask = (column < R)[None, :]
        if WIDTH % (SPLITS * BLOCK_D) != 0:
            mask = mask & (d < WIDTH)[None, :]
            weight_mask = weight_mask & (d < WIDTH)[:, None]
        at = row[:, None] * (S * WIDTH) + d[None, :]
        weight_ptr = fn_ptr + column[None, :] * (S * WIDTH) + d[:, None]
        old = ()
        for j in tl.static_range(S):
            old = old + (tl.load(streams_ptr + at + j * WIDTH, mask=mask, other=0.0),)
        if EXPAND:
            y = tl.load(y_ptr + row[:, None] * WIDTH + d[None, :], mask=mask, other=0.0)
            # A sum of one keeps Triton from mixing in the layout of the product's operand, where
            # several warps hold, and would compute, the same values.
            y = tl.sum(tl.reshape(y.to(tl.float32), [BLOCK_T, BLOCK_D, 1]), 2)
        for k in tl.static_range(S):
            new = old[k]
            if EXPAND:
                mixed = posts[k][:, None] * y
                for j in tl.static_range(S):
                    mixed += combs[k * S + j][:, None] * old[j].to(tl.float32)
                new = mixed.to(new.dtype)
                tl.store(out_ptr + at + k * WIDTH, new, mask=mask)
            if PROJECT:
                wide = new.to(tl.float32)
                squares += wide * wide
                rows_ptr = weight_ptr + k * WIDTH
                acc = project(new, rows_ptr, weight_mask, R * S * WIDTH, acc, PIECES)
    if PROJECT:
        sums = tl.where((column == N - 1)[None, :], tl.sum(squares, 1)[:, None], acc)
        place = (split.to(tl.int64) * num_tokens + row[:, None]) * N + column[None, :]
        tl.store(partial_ptr + place, sums, mask=live[:, None])


def pass_streams(
    streams: torch.Tensor,
    fn: torch.Tensor | None,
    expand: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    tiles: Tiles | None = None,
) -> tuple[torch.Tensor, Partials | None]:
    """Launch stream_kernel: (new streams [T, S, D], their Partials).

    streams: [T, S, D]. fn: bf16 [3, R, S * D] from split_weight(), or None: nothing is projected.
    expand: (y [T, D], post [T, S], comb [T, S, S]), or None: the streams stay as they are.
    """
    tiles = tiles or TILES[target_of(streams).kind]
    streams = streams.contiguous()
    tokens, count, width = streams.shape
    rows = 1 if fn is None else fn.shape[1]
    columns = max(16, pow2(rows + 1))
    splits = min(tiles.splits, -(-width // tiles.depth))
    out = streams if expand is None else torch.empty_like(streams)
    size = (splits, tokens, columns) if fn is not None else (0,)
    sums = torch.empty(size, dtype=torch.float32, device=streams.device)
    y, post, comb = expand or (streams, sums, sums)
    if tokens:
        stream_kernel[(splits, -(-tokens // tiles.tokens))](
            y.contiguous(),
            streams,
            post.contiguous(),
            comb.contiguous(),
            streams if fn is None else fn,
            out,
            sums,
            tokens,
            WIDTH=width,
            EXPAND=expand is not None,
            PROJECT=fn is not None,
            S=count,
            R=rows,
            N=columns,
            PIECES=tiles.pieces,
            BLOCK_T=tiles.tokens,
            BLOCK_D=tiles.depth,
            SPLITS=splits,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            **({"maxnreg": tiles.registers} if tiles.registers else {}),
        )
    return out, None if fn is None else Partials(sums, width, tiles)
