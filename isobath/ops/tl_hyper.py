"""Hyper-connections in Triton, first half: one pass over the streams. tl_hyper_token.py is the
second; every hyper_* op is a choice of steps of the two.

A block's output, if need be added up from the experts' parts of it, goes into the streams, and in
the same pass the rounded streams are projected on
the mixer's rows and squared. The width is cut into slices, and slices into groups. A program owns
BLOCK_T tokens and either one slice, which spreads few tokens over the machine, or one group slice
after slice, which leaves less to add up. It leaves float32 partial sums [slices or groups, T, N]:
columns 0 .. R - 1 are the projections, column N - 1 the sum of squares.

What decides a token's bits, `Form`, depends on the width and the machine, never on the number of
tokens: each slice is summed by itself, then a group's slices in order, then the groups. So `Tiles`,
which depend on the number of tokens, change no bit, and the ops that share a step share its bits.

The mixer's float32 rows are kept as three bf16 pieces whose sum is exact. bf16 streams use two,
which leave 2^-18 of a weight, as random as the float32 sum's own rounding (2^-24 * sqrt(16384) =
2^-17 at V4-Flash's width). float32 streams use the sum of all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from isobath.ops.experts import Summands
from isobath.ops.tl_common import pow2, target_of

_PIECES = 3


@dataclass(frozen=True, slots=True)
class Form:
    """depth: a slice's share of each stream. groups: of slices. token_warps: of token_kernel.
    mix_tokens: tokens of one of its Sinkhorn programs."""

    depth: int = 64
    groups: int = 16
    token_warps: int = 8
    mix_tokens: int = 16


@dataclass(frozen=True, slots=True)
class Tiles:
    """up_to: the most tokens they are for. tokens, warps, stages: of stream_kernel; at least 4
    tokens a warp, so that a lane always squares 8 neighbours. whole: programs take a group, not a
    slice. registers: cap of stream_kernel's, on cuda only; 0: none."""

    up_to: int
    tokens: int = 16
    warps: int = 4
    stages: int = 1
    whole: bool = False
    registers: int = 0


EVER = 1 << 62

FORMS = {"cuda": Form(token_warps=4, mix_tokens=4), "hip": Form(token_warps=4), "cpu": Form()}
TILES = {
    "cuda": (Tiles(64), Tiles(EVER, tokens=32, stages=3, whole=True)),
    "hip": (Tiles(64), Tiles(EVER, whole=True)),
    "cpu": (Tiles(2), Tiles(EVER, whole=True)),
}
"""By launch target. cuda: measured on an NVIDIA H200, 2026-11-22, median of 7 graph replays of 2 to
24 calls at V4-Flash's width, hyper_enter in us. Slices, 16 tokens: 9.7 at T=1, 14.3 at 64, 64.2 at
1024; with 4 mix_tokens, not 16: 9.0, 12.0, 64.8. Groups, at T=256, 1024, 8192: 32 tokens and 3
stages 20.2, 45.8, 318; 2 stages 23.1, 50.7, 341; 8 warps (128 registers) and 3 stages 21.8, 50.0,
349; 16 tokens and 3 stages 20.1, 53.6; 64 tokens and 8 warps 56.5 at 1024. All of one form gave the
same bits. On an H100, 2026-11-26, 4 / 8 token_warps with 4 mix_tokens: 10.1 / 11.3 at 64, 17.1 /
18.5 at 256, 51.0 / 52.0 at 1024; 16 warps are slower. hip: predicted from registers and LDS."""


ADDING = TILES | {"cuda": (Tiles(64), Tiles(EVER, stages=3, whole=True))}
"""Where y comes as Summands. Six more tiles are on their way then. H100, 2026-11-27, bf16 summands,
at T=256 and 1024 in us: 16 tokens and 2 stages 27.5, 72.8; 3 stages 24.4, 72.8; 4 stages 28.3,
83.3; 32 tokens and 2 or 3 stages 29.1, 73.8 or 25.6, 78.8; 3 and 8 warps 24.8, 74.6."""


def tiles_of(tensor: torch.Tensor, tokens: int, *, adding: bool = False) -> Tiles:
    """Tiles for that many tokens on the machine that `tensor` lies on."""
    choices = (ADDING if adding else TILES)[target_of(tensor).kind]
    return next(tiles for tiles in choices if tokens <= tiles.up_to)


@dataclass(frozen=True, slots=True)
class Partials:
    """sums: float32 [groups * slices, T, N], see the module. slices: that a group was left in."""

    sums: torch.Tensor
    slices: int


def split_weight(fn: torch.Tensor) -> torch.Tensor:
    """float32 [R, K] -> bf16 [3, R, K] pieces, largest first, whose float32 sum is exact."""
    pieces, rest = [], fn
    for _ in range(_PIECES):
        pieces.append(rest.to(torch.bfloat16))
        rest = rest - pieces[-1].float()
    return torch.stack(pieces)


@triton.jit
def load_weight(fn_ptr, k, d, valid, WIDTH: tl.constexpr, S: tl.constexpr, R: tl.constexpr,
                N: tl.constexpr, EXACT: tl.constexpr):  # fmt: skip
    """The mixer's rows at values d of stream k, zero where not `valid`. EXACT: float32 [n, N].
    Else the first two pieces, bf16 [n, 2 * N], those of a row side by side."""
    column = tl.arange(0, N if EXACT else 2 * N)
    row = column if EXACT else column // 2
    at = fn_ptr + row[None, :] * (S * WIDTH) + (k * WIDTH + d)[:, None]
    mask = (row < R)[None, :] & valid[:, None]
    if EXACT:
        weight = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        for piece in tl.static_range(1, 3):
            more = tl.load(at + piece * (R * S * WIDTH), mask=mask, other=0.0)
            weight += more.to(tl.float32)
    else:
        weight = tl.load(at + (column % 2)[None, :] * (R * S * WIDTH), mask=mask, other=0.0)
    return weight


@triton.jit(do_not_specialize=["num_tokens"])
def stream_kernel(
    y_ptr,
    products_ptr,
    experts_ptr,
    streams_ptr,
    post_ptr,
    comb_ptr,
    fn_ptr,
    out_ptr,
    partial_ptr,
    num_tokens,
    WIDTH: tl.constexpr,
    EXPAND: tl.constexpr,
    PARTS: tl.constexpr,
    SHARED: tl.constexpr,
    PROJECT: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SLICES: tl.constexpr,
):
    """SLICES slices of the width for BLOCK_T tokens; see the module. Grid: (slices / SLICES, token
    blocks).

    y: [T, D]. With PARTS it is the last summand, or none without SHARED; the others are products,
    [T, PARTS, D], where experts, int64 [T, PARTS], is not negative. streams, out:
    [T, S, D]. post: [T, S]. comb: [T, S, S]. fn: bf16 [3, R, S * D]. partial: float32 [grid, T, N].
    All contiguous; out only with EXPAND, partial with PROJECT. EXACT: streams are float32.
    """
    program = tl.program_id(0)
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
    theres = ()
    for part in tl.static_range(PARTS):
        expert = tl.load(experts_ptr + row * PARTS + part, mask=live, other=-1)
        theres = theres + (expert >= 0,)
    SPAN: tl.constexpr = N if EXACT else 2 * N
    total = tl.zeros([BLOCK_T, N], tl.float32)
    total_squares = tl.zeros([BLOCK_T], tl.float32)
    for i in range(SLICES):
        d = (program * SLICES + i) * BLOCK_D + tl.arange(0, BLOCK_D)
        valid = d < WIDTH
        mask = live[:, None] & valid[None, :]
        at = row[:, None] * (S * WIDTH) + d[None, :]
        olds = ()
        weights = ()
        for j in tl.static_range(S):
            olds = olds + (tl.load(streams_ptr + at + j * WIDTH, mask=mask, other=0.0),)
        if EXPAND:
            if PARTS == 0 or SHARED:
                y = tl.load(y_ptr + row[:, None] * WIDTH + d[None, :], mask=mask, other=0.0)
            parts = ()
            for part in tl.static_range(PARTS):
                part_at = products_ptr + (row * PARTS + part)[:, None] * WIDTH + d[None, :]
                there = mask & theres[part][:, None]
                parts = parts + (tl.load(part_at, mask=there, other=0.0),)
        if PROJECT and SLICES == 1:  # asked for before anything is used; a loop is pipelined
            for j in tl.static_range(S):
                weights = weights + (load_weight(fn_ptr, j, d, valid, WIDTH, S, R, N, EXACT),)
        if EXPAND:
            if PARTS > 0:
                added = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
                for part in tl.static_range(PARTS):
                    added += parts[part].to(tl.float32)
                if SHARED:
                    added += y.to(tl.float32)
                y = added.to(out_ptr.dtype.element_ty)
            # A sum of one keeps Triton from mixing in the layout of the product's operand, where
            # several warps hold, and would compute, the same values.
            y = tl.sum(tl.reshape(y.to(tl.float32), [BLOCK_T, BLOCK_D, 1]), 2)
        acc = tl.zeros([BLOCK_T, SPAN], tl.float32)
        squares = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
        for k in tl.static_range(S):
            new = olds[k]
            if EXPAND:
                mixed = posts[k][:, None] * y
                for j in tl.static_range(S):
                    mixed = tl.fma(combs[k * S + j][:, None], olds[j].to(tl.float32), mixed)
                new = mixed.to(new.dtype)
                tl.store(out_ptr + at + k * WIDTH, new, mask=mask)
            if PROJECT:
                wide = new.to(tl.float32)
                squares = tl.fma(wide, wide, squares)
                if SLICES > 1:
                    weights = weights + (load_weight(fn_ptr, k, d, valid, WIDTH, S, R, N, EXACT),)
                if EXACT:
                    acc = tl.dot(new, weights[k], acc, input_precision="ieee")
                else:
                    acc = tl.dot(new, weights[k], acc)
        if EXACT:
            total += acc
        else:
            first, second = tl.split(tl.reshape(acc, [BLOCK_T, N, 2]))
            total += first + second
        total_squares += tl.sum(squares, 1)
    if PROJECT:
        column = tl.arange(0, N)
        sums = tl.where((column == N - 1)[None, :], total_squares[:, None], total)
        place = (program.to(tl.int64) * num_tokens + row[:, None]) * N + column[None, :]
        tl.store(partial_ptr + place, sums, mask=live[:, None])


def pass_streams(
    streams: torch.Tensor,
    fn: torch.Tensor | None,
    expand: tuple[torch.Tensor | Summands, torch.Tensor, torch.Tensor] | None,
    tiles: Tiles | None = None,
) -> tuple[torch.Tensor, Partials | None]:
    """Launch stream_kernel: (new streams [T, S, D], their Partials).

    streams: [T, S, D]. fn: bf16 [3, R, S * D] from split_weight(), or None: nothing is projected.
    expand: (y [T, D] or its Summands, post [T, S], comb [T, S, S]), or None: the streams stay as
    they are.
    """
    streams = streams.contiguous()
    tokens, count, width = streams.shape
    form = FORMS[target_of(streams).kind]
    rows = 1 if fn is None else fn.shape[1]
    columns = max(16, pow2(rows + 1))
    groups = min(form.groups, -(-width // form.depth))
    slices = -(-width // (groups * form.depth))
    parts = expand[0] if expand and isinstance(expand[0], Summands) else None
    tiles = tiles or tiles_of(streams, tokens, adding=parts is not None)
    left = 1 if tiles.whole else slices
    out = streams if expand is None else torch.empty_like(streams)
    size = (groups * left, tokens, columns) if fn is not None else (0,)
    sums = torch.empty(size, dtype=torch.float32, device=streams.device)
    y, post, comb = expand or (streams, sums, sums)
    assert parts is None or parts.dtype == streams.dtype, "y is rounded to the streams' dtype"
    last = parts.shared if parts else y
    assert last is None or isinstance(last, torch.Tensor)
    if tokens:
        stream_kernel[(groups * left, -(-tokens // tiles.tokens))](
            streams if last is None else last.contiguous(),
            parts.products.contiguous() if parts else streams,
            parts.experts.contiguous() if parts else streams,
            streams,
            post.contiguous(),
            comb.contiguous(),
            streams if fn is None else fn,
            out,
            sums,
            tokens,
            WIDTH=width,
            EXPAND=expand is not None,
            PARTS=parts.experts.shape[1] if parts else 0,
            SHARED=parts is not None and parts.shared is not None,
            PROJECT=fn is not None,
            S=count,
            R=rows,
            N=columns,
            EXACT=streams.dtype == torch.float32,
            BLOCK_T=tiles.tokens,
            BLOCK_D=form.depth,
            SLICES=slices // left,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            **({"maxnreg": tiles.registers} if tiles.registers else {}),
        )
    return out, None if fn is None else Partials(sums, left)
