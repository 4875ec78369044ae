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
from isobath.ops.tl_hyper import FORMS, Partials

_GROUP = ACTIVATION_BLOCK[1]


@triton.jit
def group_sums(from_ptr, group, mask, stride, GROUPS: tl.constexpr, SLICES: tl.constexpr):
    """Partial sums of each group, its slices in order. group: the first axis, the rest are those of
    from_ptr. The caller adds the groups up when all its loads are on their way."""
    mask = mask & (group < GROUPS)
    total = tl.load(from_ptr + group * SLICES * stride, mask=mask, other=0.0)
    for i in tl.static_range(1, SLICES):
        total += tl.load(from_ptr + (group * SLICES + i) * stride, mask=mask, other=0.0)
    return total


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
    GROUPS: tl.constexpr,
    SLICES: tl.constexpr,
    BLOCK_G: tl.constexpr,
    ITERS: tl.constexpr,
):
    """post [T, S] and comb [T, S, S] of the tokens `token` [n]: softmax of the rows, plus eps, then
    ITERS column steps with a row step between each two; a step divides by eps plus the sum."""
    live = token < num_tokens
    row = token.to(tl.int64)
    stride = num_tokens.to(tl.int64) * N
    group = tl.arange(0, BLOCK_G)[:, None]
    one = tl.arange(0, S)
    pair = one[:, None] * S + one[None, :]
    at = partial_ptr + row * N + N - 1
    squares = group_sums(at[None, :], group, live[None, :], stride, GROUPS, SLICES)
    group = group[:, :, None]
    at = partial_ptr + row[:, None] * N + S + one[None, :]
    posts = group_sums(at[None, :, :], group, live[None, :, None], stride, GROUPS, SLICES)
    group, wide = group[:, :, :, None], live[None, :, None, None]
    at = partial_ptr + row[:, None, None] * N + 2 * S + pair[None, :, :]
    combs = group_sums(at[None, :, :, :], group, wide, stride, GROUPS, SLICES)
    base, scale = tl.load(base_ptr + 2 * S + pair), tl.load(scale_ptr + 2)
    post_base, post_scale = tl.load(base_ptr + S + one), tl.load(scale_ptr + 1)
    inverse = tl.rsqrt(tl.sum(squares, 0) / (S * width) + norm_eps)
    u = tl.sum(posts, 0) * inverse[:, None]
    gates = sigmoid(tl.fma(u, post_scale, post_base[None, :]))
    tl.store(post_ptr + row[:, None] * S + one[None, :], 2 * gates, mask=live[:, None])
    c = tl.fma(tl.sum(combs, 0) * inverse[:, None, None], scale, base[None, :, :])
    c = tl.exp(c - tl.max(c, 2)[:, :, None])
    c = c / tl.sum(c, 2)[:, :, None] + eps
    c = c / (tl.sum(c, 1) + eps)[:, None, :]
    for _ in range(ITERS - 1):
        c = c / (tl.sum(c, 2) + eps)[:, :, None]
        c = c / (tl.sum(c, 1) + eps)[:, None, :]
    at = row[:, None, None] * (S * S) + pair[None, :, :]
    tl.store(comb_ptr + at, c, mask=live[:, None, None])


@triton.jit
def collapse_row(olds, pres, weight, width, norm_eps, S: tl.constexpr):
    """RMSNorm(round(sum_j pres[j] * olds[j])) * weight, rounded to the streams' dtype: float32 [n].
    olds: S tiles [n], zero beyond width. pres: S scalars. weight: float32 [n]."""
    total = pres[0] * olds[0].to(tl.float32)
    for j in tl.static_range(1, S):
        total = tl.fma(pres[j], olds[j].to(tl.float32), total)
    rounded = total.to(olds[0].dtype).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(rounded * rounded, 0) / width + norm_eps)
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
    GROUPS: tl.constexpr,
    SLICES: tl.constexpr,
    ITERS: tl.constexpr,
    BLOCK_G: tl.constexpr,
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
                eps, norm_eps, S, N, GROUPS, SLICES, BLOCK_G, ITERS,
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
            weight = tl.load(norm_ptr + d, mask=valid, other=0.0).to(tl.float32)
        pres = ()
        if PRE == "given":
            for j in tl.static_range(S):
                pres = pres + (tl.load(pre_ptr + row * pre_stride + j),)
        else:
            stride = num_tokens.to(tl.int64) * N
            group = tl.arange(0, BLOCK_G)
            at = partial_ptr + row * N
            columns = (group_sums(at + N - 1, group, True, stride, GROUPS, SLICES),)
            for j in tl.static_range(S):
                column = group_sums(at + j, group, True, stride, GROUPS, SLICES)
                columns = columns + (column,)
            scale = tl.load(scale_ptr)
            inverse = tl.rsqrt(tl.sum(columns[0], 0) / (S * WIDTH) + norm_eps)
            for j in tl.static_range(S):
                u = tl.sum(columns[j + 1], 0) * inverse
                pres = pres + (sigmoid(tl.fma(u, scale, tl.load(base_ptr + j))) + eps,)
        if PRE == "stored":
            for j in tl.static_range(S):
                tl.store(pre_ptr + row * pre_stride + j, pres[j])
        if COLLAPSE:
            x = collapse_row(olds, pres, weight, WIDTH, norm_eps, S)
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
) -> Finished:
    """Launch token_kernel on streams [T, S, D].

    gates: a Mixer, or pre [T, S] itself. norm_weight: [D], or None: nothing is collapsed, pre is
    wanted instead. dialect: x is quantised too.
    """
    streams = streams.contiguous()
    tokens, count, width = streams.shape
    form = FORMS[target_of(streams).kind]
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
    mix_programs = -(-tokens // form.mix_tokens) if mix else 0
    if tokens:
        partials = mixer.partials if mixer else Partials(streams[:0], 1)
        sums, slices = partials.sums, partials.slices
        token_kernel[(mix_programs + tokens,)](
            sums if mixer else streams,
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
            GROUPS=len(sums) // slices,
            SLICES=slices,
            BLOCK_G=pow2(len(sums) // slices),
            ITERS=mixer.iters if mixer else 0,
            MIX_T=form.mix_tokens,
            BLOCK_D=max(_GROUP, pow2(width)),
            GROUP=_GROUP if dialect else 0,
            **fp8_of(dialect or OCP),
            num_warps=form.token_warps,
            num_stages=1,
        )
    quantized = None
    if dialect is not None:
        quantized = Fp8Tensor(codes.view(dialect.dtype), exponents, dialect, ACTIVATION_BLOCK)
    return Finished(given, post, comb, x, quantized)
