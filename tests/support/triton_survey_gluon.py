"""Gluon kernels for gfx942 of a survey: layouts written out, LDS by hand, matrix instructions
chosen, buffer instructions. Device code alone; what they must compute stands in survey_gluon.py.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def doubled(x, out, n, B: gl.constexpr, L: gl.constexpr):
    at = gl.program_id(0) * B + gl.arange(0, B, layout=L)
    v = gl.amd.cdna3.buffer_load(x, at, mask=at < n, other=3.0)
    gl.amd.cdna3.buffer_store(v * 2, out, at, mask=at < n)


@gluon.jit
def atomics(x, out, B: gl.constexpr, L: gl.constexpr, OP: gl.constexpr):
    at = gl.arange(0, B, layout=L)
    v = gl.load(x + at)
    if OP == "max":
        gl.amd.cdna3.buffer_atomic_max(out, at % 16, v)
    elif OP == "min":
        gl.amd.cdna3.buffer_atomic_min(out, at % 16, v)
    elif OP == "and":
        gl.amd.cdna3.buffer_atomic_and(out, at % 16, v)
    elif OP == "or":
        gl.amd.cdna3.buffer_atomic_or(out, at % 16, v)
    elif OP == "xor":
        gl.amd.cdna3.buffer_atomic_xor(out, at % 16, v)
    else:
        gl.amd.cdna3.buffer_atomic_add(out, at % 16, v)


@gluon.jit
def transposed(
    x, out, M: gl.constexpr, N: gl.constexpr, L: gl.constexpr, S: gl.constexpr, T: gl.constexpr
):
    m = gl.arange(0, M, layout=gl.SliceLayout(1, L))
    n = gl.arange(0, N, layout=gl.SliceLayout(0, L))
    block = gl.allocate_shared_memory(x.dtype.element_ty, [M, N], S)
    block.store(gl.load(x + m[:, None] * N + n[None, :]))
    i = gl.arange(0, N, layout=gl.SliceLayout(1, T))
    j = gl.arange(0, M, layout=gl.SliceLayout(0, T))
    gl.store(out + i[:, None] * M + j[None, :], block.permute((1, 0)).load(T))


@gluon.jit
def product(
    a, b, out, M: gl.constexpr, N: gl.constexpr, K: gl.constexpr, L: gl.constexpr,
    D: gl.constexpr, WIDTH: gl.constexpr, SA: gl.constexpr, SB: gl.constexpr,
):  # fmt: skip
    m = gl.arange(0, M, layout=gl.SliceLayout(1, L))
    n = gl.arange(0, N, layout=gl.SliceLayout(0, L))
    across = gl.arange(0, K, layout=gl.SliceLayout(0, L))
    down = gl.arange(0, K, layout=gl.SliceLayout(1, L))
    x = gl.load(a + m[:, None] * K + across[None, :])
    y = gl.load(b + down[:, None] * N + n[None, :])
    left = gl.allocate_shared_memory(a.dtype.element_ty, [M, K], SA, x)
    right = gl.allocate_shared_memory(b.dtype.element_ty, [K, N], SB, y)
    p = left.load(gl.DotOperandLayout(0, D, WIDTH))
    q = right.load(gl.DotOperandLayout(1, D, WIDTH))
    acc = gl.amd.cdna3.mfma(p, q, gl.zeros((M, N), out.dtype.element_ty, layout=D))
    i = gl.arange(0, M, layout=gl.SliceLayout(1, D))
    j = gl.arange(0, N, layout=gl.SliceLayout(0, D))
    gl.store(out + i[:, None] * N + j[None, :], acc)


@gluon.jit
def two_buffers(
    a, b, out, K, M: gl.constexpr, N: gl.constexpr, BK: gl.constexpr, L: gl.constexpr,
    D: gl.constexpr, S: gl.constexpr,
):  # fmt: skip
    m = gl.arange(0, M, layout=gl.SliceLayout(1, L))[:, None]
    n = gl.arange(0, N, layout=gl.SliceLayout(0, L))[None, :]
    across = gl.arange(0, BK, layout=gl.SliceLayout(0, L))[None, :]
    down = gl.arange(0, BK, layout=gl.SliceLayout(1, L))[:, None]
    left = gl.allocate_shared_memory(a.dtype.element_ty, [2, M, BK], S)
    right = gl.allocate_shared_memory(b.dtype.element_ty, [2, BK, N], S)
    left.index(0).store(gl.amd.cdna3.buffer_load(a, m * K + across))
    right.index(0).store(gl.amd.cdna3.buffer_load(b, down * N + n))
    acc = gl.zeros((M, N), gl.float32, layout=D)
    for i in range(K // BK):
        k = (i + 1) * BK
        x = gl.amd.cdna3.buffer_load(a, m * K + across + k, mask=across + k < K, other=0.0)
        y = gl.amd.cdna3.buffer_load(b, (down + k) * N + n, mask=down + k < K, other=0.0)
        p = left.index(i % 2).load(gl.DotOperandLayout(0, D, 4))
        q = right.index(i % 2).load(gl.DotOperandLayout(1, D, 4))
        acc = gl.amd.cdna3.mfma(p, q, acc)
        left.index((i + 1) % 2).store(x)
        right.index((i + 1) % 2).store(y)
    i = gl.arange(0, M, layout=gl.SliceLayout(1, D))
    j = gl.arange(0, N, layout=gl.SliceLayout(0, D))
    gl.amd.cdna3.buffer_store(acc, out, i[:, None] * N + j[None, :])


@gluon.jit
def sums(x, out, M: gl.constexpr, N: gl.constexpr, L: gl.constexpr, F: gl.constexpr):
    m = gl.arange(0, M, layout=gl.SliceLayout(1, L))
    n = gl.arange(0, N, layout=gl.SliceLayout(0, L))
    v = gl.load(x + m[:, None] * N + n[None, :])
    gl.store(out + m, gl.sum(v, 1))
    gl.store(out + M + n, gl.max(v, 0))
    at = gl.arange(0, N, layout=F)
    gl.store(out + M + N + at, gl.convert_layout(gl.sum(v, 0), F))
