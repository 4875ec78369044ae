"""Hyper-connections in Triton, second half: what becomes of each token after the pass over its
streams. Partial sums are added up in a fixed order; gates, Sinkhorn matrix, collapsed sum, norm and
FP8 row follow. See tl_hyper.py.

The order of every sum is that of the code or of a tile whose size depends on the width alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from isobath.numerics.dialect import OCP, Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor, scale_shape
from isobath.ops.tl_common import fp8_of, pow2, quantize_row, sigmoid, target_of
from isobath.ops.tl_hyper import TILES, Partials, Tiles

_GROUP = ACTIVATION_BLOCK[1]


@triton.jit
def sum_splits(partial_ptr, at, stride, mask, SPLITS: tl.constexpr):
    """Partial sums at `at` added up, first slice first."""
    total = tl.load(partial_ptr + at, mask=mask)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(partial_ptr + at + split * stride, mask=mask)
    return total


@triton.jit
def gate(partial_ptr, at, inverse, stride, base, scale, SPLITS: tl.constexpr):
    """sigmoid(u * scale + base) of one token's projection u; at: where its partial sums are."""
    u = sum_splits(partial_ptr, at, stride, None, SPLITS) * inverse
    return sigmoid(tl.fma(u, scale, base))


@triton.jit
def mix_tokens(
    partial_ptr,
    base_ptr,
    scale_ptr,
    post_ptr,
    comb_ptr,
    token,
    num_tokens,
    width,
    eps,
    norm_eps,
    S: tl.constexpr,
    N: tl.constexpr,
    SPLITS: tl.constexpr,
    ITERS: tl.constexpr,
):
    """post [T, S] and comb [T, S, S] of the tokens `token` [n]: softmax of the rows, plus eps, then
    ITERS column steps with a row step between each two; a step divides by eps plus the sum."""
    live = token < num_tokens
    row = token.to(tl.int64)
    stride = num_tokens.to(tl.int64) * N
    squares = sum_splits(partial_ptr, row * N + N - 1, stride, live, SPLITS)
    inverse = tl.rsqrt(squares / (S * width) + norm_eps)
    one = tl.arange(0, S)
    u = sum_splits(partial_ptr, row[:, None] * N + S + one[None, :], stride, live[:, None], SPLITS)
    u = u * inverse[:, None]
    gates = sigmoid(tl.fma(u, tl.load(scale_ptr + 1), tl.load(base_ptr + S + one)[None, :]))
    tl.store(post_ptr + row[:, None] * S + one[None, :], 2 * gates, mask=live[:, None])
    pair = one[:, None] * S + one[None, :]
    at = row[:, None, None] * N + 2 * S + pair[None, :, :]
    u = sum_splits(partial_ptr, at, stride, live[:, None, None], SPLITS)
    u = u * inverse[:, None, None]
    base = tl.load(base_ptr + 2 * S + pair)
    c = tl.fma(u, tl.load(scale_ptr + 2), base[None, :, :])
    c = tl.exp(c - tl.max(c, 2)[:, :, None])
    c = c / tl.sum(c, 2)[:, :, None] + eps
    c = c / (tl.sum(c, 1) + eps)[:, None, :]
    for _ in range(ITERS - 1):
        c = c / (tl.sum(c, 2) + eps)[:, :, None]
        c = c / (tl.sum(c, 1) + eps)[:, None, :]
    at = row[:, None, None] * (S * S) + pair[None, :, :]
    tl.store(comb_ptr + at, c, mask=live[:, None, None])


@triton.jit
def collapse_row(olds, pres, norm_ptr, d, valid, width, norm_eps, S: tl.constexpr):
    """RMSNorm(round(sum_j pres[j] * olds[j])) * weight, rounded to the streams' dtype: float32 [n].
    olds: S tiles [n], zero where not valid. pres: S scalars."""
    total = pres[0] * olds[0].to(tl.float32)
    for j in tl.static_range(1, S):
        total += pres[j] * olds[j].to(tl.float32)
    rounded = total.to(olds[0].dtype).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(rounded * rounded, 0) / width + norm_eps)
    weight = tl.load(norm_ptr + d, mask=valid, other=0.0).to(tl.float32)
    return (rounded * inverse * weight).to(olds[0].dtype).to(tl.float32)


@triton.jit(do_not_specialize=["num_tokens", "pre_stride", "mix_programs"])
def token_kernel(
    partial_ptr,
    streams_ptr,
    base_ptr,
    scale_ptr,
    norm_ptr,
    pre_ptr,
    post_ptr,
    comb_ptr,
    x_ptr,
    codes_ptr,
    exponents_ptr,
    num_tokens,
    pre_stride,
    mix_programs,
    eps,
    norm_eps,
    WIDTH: tl.constexpr,
    PRE: tl.constexpr,
    COLLAPSE: tl.constexpr,
    MIX: tl.constexpr,
    S: tl.constexpr,
    N: tl.constexpr,
    SPLITS: tl.constexpr,
    ITERS: tl.constexpr,
    MIX_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """Programs 0 .. mix_programs - 1: Sinkhorn matrices of MIX_T tokens each; they finish while the
    others, one a token, collapse it. PRE: "made" from partial, "given" in pre [T, S], or "stored"
    there. GROUP: of FP8 values that share a scale; 0: x is not quantised.

    x: [T, D]. codes: uint8 [T, D]. exponents: uint8 [T, D / GROUP]; only with COLLAPSE.
    """
    program = tl.program_id(0)
    if program < mix_programs:
        if MIX:
            token = program * MIX_T + tl.arange(0, MIX_T)
            mix_tokens(
                partial_ptr, base_ptr, scale_ptr, post_ptr, comb_ptr, token, num_tokens, WIDTH,
                eps, norm_eps, S, N, SPLITS, ITERS,
            )  # fmt: skip
    else:
        row = (program - mix_programs).to(tl.int64)
        d = tl.arange(0, BLOCK_D)
        valid = d < WIDTH
        olds = ()
        if COLLAPSE:  # asked for first: they are on their way while the gates are made
            for j in tl.static_range(S):
                at = streams_ptr + (row * S + j) * WIDTH + d
                olds = olds + (tl.load(at, mask=valid, other=0.0),)
        pres = ()
        if PRE == "given":
            for j in tl.static_range(S):
                pres = pres + (tl.load(pre_ptr + row * pre_stride + j),)
        else:
            stride = num_tokens.to(tl.int64) * N
            squares = sum_splits(partial_ptr, row * N + N - 1, stride, None, SPLITS)
            inverse = tl.rsqrt(squares / (S * WIDTH) + norm_eps)
            scale = tl.load(scale_ptr)
            for j in tl.static_range(S):
                base = tl.load(base_ptr + j)
                g = gate(partial_ptr, row * N + j, inverse, stride, base, scale, SPLITS)
                pres = pres + (g + eps,)
        if PRE == "stored":
            for j in tl.static_range(S):
                tl.store(pre_ptr + row * pre_stride + j, pres[j])
        if COLLAPSE:
            x = collapse_row(olds, pres, norm_ptr, d, valid, WIDTH, norm_eps, S)
            tl.store(x_ptr + row * WIDTH + d, x.to(x_ptr.dtype.element_ty), mask=valid)
            if GROUP > 0:
                codes, exponents = quantize_row(x, GROUP, QUANT_MAX, FP8)
                tl.store(codes_ptr + row * WIDTH + d, codes, mask=valid)
                group = tl.arange(0, BLOCK_D // GROUP)
                at = exponents_ptr + row * (WIDTH // GROUP) + group
                tl.store(at, exponents.to(tl.uint8), mask=group < WIDTH // GROUP)


@dataclass(frozen=True, slots=True)
class Mixer:
    """What gates are made from. base: float32 [R]. scale: float32 [1 or 3]. iters: Sinkhorn column
    steps, 0 for a mixer without post and comb (the head's). eps: of hyper_mix."""

    partials: Partials
    base: torch.Tensor
    scale: torch.Tensor
    iters: int
    eps: float


@dataclass(frozen=True, slots=True)
class Finished:
    """pre, post: float32 [T, S]. comb: float32 [T, S, S]. x: [T, D]. quantized: x in FP8. Empty
    tensors, and None for quantized, where they were not asked for."""

    pre: torch.Tensor
    post: torch.Tensor
    comb: torch.Tensor
    x: torch.Tensor
    quantized: Fp8Tensor | None


def finish_tokens(
    streams: torch.Tensor,
    gates: Mixer | torch.Tensor,
    norm_weight: torch.Tensor | None,
    *,
    norm_eps: float,
    dialect: Dialect | None = None,
    tiles: Tiles | None = None,
) -> Finished:
    """Launch token_kernel on streams [T, S, D].

    gates: a Mixer, or pre [T, S] itself. norm_weight: [D], or None: nothing is collapsed, pre is
    wanted instead. dialect: x is quantised too.
    """
    tiles = tiles or TILES[target_of(streams).kind]
    streams = streams.contiguous()
    tokens, count, width = streams.shape
    mixer = gates if isinstance(gates, Mixer) else None
    collapse, mix = norm_weight is not None, mixer is not None and mixer.iters > 0

    def floats(wanted: bool, *shape: int) -> torch.Tensor:
        shape = shape if wanted else (0,)
        return torch.empty(shape, dtype=torch.float32, device=streams.device)

    given = gates if isinstance(gates, torch.Tensor) else floats(not collapse, tokens, count)
    post, comb = floats(mix, tokens, count), floats(mix, tokens, count, count)
    x = torch.empty((tokens, width) if collapse else (0,), dtype=streams.dtype, device=post.device)
    codes = torch.empty(x.shape if dialect else (0,), dtype=torch.uint8, device=post.device)
    groups = scale_shape((tokens, width), ACTIVATION_BLOCK) if dialect else (0,)
    exponents = torch.empty(groups, dtype=torch.uint8, device=post.device)
    mix_programs = -(-tokens // tiles.mix_tokens) if mix else 0
    if tokens:
        sums = mixer.partials.sums if mixer else streams
        token_kernel[(mix_programs + tokens,)](
            sums,
            streams,
            mixer.base if mixer else streams,
            mixer.scale if mixer else streams,
            norm_weight if collapse else streams,
            given,
            post,
            comb,
            x,
            codes,
            exponents,
            tokens,
            given.stride(0),
            mix_programs,
            mixer.eps if mixer else 0.0,
            norm_eps,
            WIDTH=width,
            PRE=("made" if collapse else "stored") if mixer else "given",
            COLLAPSE=collapse,
            MIX=mix,
            S=count,
            N=sums.shape[-1] if mixer else 1,
            SPLITS=len(sums) if mixer else 1,
            ITERS=mixer.iters if mixer else 0,
            MIX_T=tiles.mix_tokens,
            BLOCK_D=max(_GROUP, pow2(width)),
            GROUP=_GROUP if dialect else 0,
            **fp8_of(dialect or OCP),
            num_warps=tiles.token_warps,
            num_stages=1,
        )
    quantized = None
    if dialect is not None:
        quantized = Fp8Tensor(codes.view(dialect.dtype), exponents, dialect, ACTIVATION_BLOCK)
    return Finished(given, post, comb, x, quantized)
