"""Kernels of a survey of Triton's language: matrix products and whole programs. Device code alone;
what they must compute stands in survey_programs.py.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def dot_tiles(
    a, b, out, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, P: tl.constexpr
):
    m = tl.arange(0, M)
    n = tl.arange(0, N)
    acc = tl.zeros((M, N), out.dtype.element_ty)
    for k0 in range(0, K, BK):
        k = k0 + tl.arange(0, BK)
        x = tl.load(a + m[:, None] * K + k[None, :])
        y = tl.load(b + k[:, None] * N + n[None, :])
        acc = tl.dot(x, y, acc, input_precision=P, out_dtype=out.dtype.element_ty)
    tl.store(out + m[:, None] * N + n[None, :], acc)


@triton.jit
def dot_masked(
    a, b, c, out, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):
    pid = tl.program_id(0)
    nm = tl.cdiv(M, BM)
    nn = tl.cdiv(N, BN)
    per = GROUP * nn
    g = pid // per
    first = g * GROUP
    size = min(nm - first, GROUP)
    pm = first + (pid % per) % size
    pn = (pid % per) // size
    m = pm * BM + tl.arange(0, BM)
    n = pn * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    pa = a + (m % M)[:, None] * K + k[None, :]
    pb = b + k[:, None] * N + (n % N)[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for i in range(0, tl.cdiv(K, BK)):
        x = tl.load(pa, mask=k[None, :] < K - i * BK, other=0.0)
        y = tl.load(pb, mask=k[:, None] < K - i * BK, other=0.0)
        acc = tl.dot(x, y, acc)
        pa += BK
        pb += BK * N
    acc = tl.where(acc >= 0, acc, 0.01 * acc)
    mask = (m[:, None] < M) & (n[None, :] < N)
    tl.store(
        out + m[:, None] * N + n[None, :],
        (acc + tl.load(c + n, mask=n < N)[None, :]).to(out.dtype.element_ty),
        mask=mask,
    )


@triton.jit
def dot_transposed(a, b, out, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m = tl.arange(0, M)
    n = tl.arange(0, N)
    k = tl.arange(0, K)
    x = tl.load(a + m[:, None] * K + k[None, :])
    y = tl.load(b + n[:, None] * K + k[None, :])
    tl.store(out + m[:, None] * N + n[None, :], tl.dot(x, tl.trans(y)))


@triton.jit
def dot_scaled(
    a,
    sa,
    b,
    sb,
    out,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    FA: tl.constexpr,
    FB: tl.constexpr,
    PA: tl.constexpr,
    PB: tl.constexpr,
    HASA: tl.constexpr,
):
    m = tl.arange(0, M)
    n = tl.arange(0, N)
    ka = tl.arange(0, K // PA)
    kb = tl.arange(0, K // PB)
    ks = tl.arange(0, K // 32)
    x = tl.load(a + m[:, None] * (K // PA) + ka[None, :])
    y = tl.load(b + kb[:, None] * N + n[None, :])
    s2 = tl.load(sb + n[:, None] * (K // 32) + ks[None, :])
    if HASA:
        s1 = tl.load(sa + m[:, None] * (K // 32) + ks[None, :])
        acc = tl.dot_scaled(x, s1, FA, y, s2, FB)
    else:
        acc = tl.dot_scaled(x, None, FA, y, s2, FB)
    tl.store(out + m[:, None] * N + n[None, :], acc)


@triton.jit
def attention(
    q,
    k,
    v,
    out,
    L,
    scale,
    BM: tl.constexpr,
    BN: tl.constexpr,
    D: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    head = tl.program_id(1)
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    base = head * L * D
    x = tl.load(q + base + m[:, None] * D + d[None, :], mask=m[:, None] < L, other=0.0)
    top = tl.full((BM,), -float("inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    end = L
    if CAUSAL:
        end = tl.minimum(L, (tl.program_id(0) + 1) * BM)
    for s in range(0, end, BN):
        n = s + tl.arange(0, BN)
        kk = tl.load(k + base + n[None, :] * D + d[:, None], mask=n[None, :] < L, other=0.0)
        sc = tl.dot(x, kk) * scale
        keep = n[None, :] < L
        if CAUSAL:
            keep = keep & (n[None, :] <= m[:, None])
        sc = tl.where(keep, sc, -float("inf"))
        new = tl.maximum(top, tl.max(sc, 1))
        p = tl.exp2((sc - new[:, None]) * 1.4426950408889634)
        old = tl.exp2((top - new) * 1.4426950408889634)
        total = total * old + tl.sum(p, 1)
        vv = tl.load(v + base + n[:, None] * D + d[None, :], mask=n[:, None] < L, other=0.0)
        acc = tl.dot(p.to(vv.dtype), vv, acc * old[:, None])
        top = new
    tl.store(out + base + m[:, None] * D + d[None, :], acc / total[:, None], mask=m[:, None] < L)


@triton.jit
def split_k(a, b, out, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, SK: tl.constexpr):
    m = tl.arange(0, M)
    n = tl.arange(0, N)
    per: tl.constexpr = K // SK
    k = tl.program_id(0) * per + tl.arange(0, per)
    x = tl.load(a + m[:, None] * K + k[None, :])
    y = tl.load(b + k[:, None] * N + n[None, :])
    tl.atomic_add(out + m[:, None] * N + n[None, :], tl.dot(x, y), sem="relaxed")


@triton.jit
def persistent(a, b, out, M, N, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    nn = tl.cdiv(N, BN)
    tiles = tl.cdiv(M, BM) * nn
    k = tl.arange(0, K)
    for t in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
        m = (t // nn) * BM + tl.arange(0, BM)
        n = (t % nn) * BN + tl.arange(0, BN)
        x = tl.load(a + m[:, None] * K + k[None, :], mask=m[:, None] < M, other=0.0)
        y = tl.load(b + k[:, None] * N + n[None, :], mask=n[None, :] < N, other=0.0)
        tl.store(
            out + m[:, None] * N + n[None, :],
            tl.dot(x, y).to(tl.bfloat16),
            mask=(m[:, None] < M) & (n[None, :] < N),
        )


@triton.jit
def lock_sum(x, lock, total, count, N, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + at, mask=at < N, other=0.0)
    s = tl.sum(v, 0)
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    tl.store(total, tl.load(total) + s)
    tl.store(count, tl.load(count) + 1)
    tl.debug_barrier()
    tl.atomic_xchg(lock, 0)


@triton.jit
def rope(x, cos, sin, out, D: tl.constexpr):
    r = tl.program_id(0)
    h = tl.arange(0, D // 2)
    a = tl.load(x + r * D + 2 * h).to(tl.float32)
    b = tl.load(x + r * D + 2 * h + 1).to(tl.float32)
    c = tl.load(cos + r * (D // 2) + h)
    s = tl.load(sin + r * (D // 2) + h)
    tl.store(out + r * D + 2 * h, (a * c - b * s).to(out.dtype.element_ty))
    tl.store(out + r * D + 2 * h + 1, (a * s + b * c).to(out.dtype.element_ty))


@triton.jit
def dropout(x, out, n, p, seed, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + at, mask=at < n)
    keep = tl.rand(seed, at) > p
    tl.store(out + at, tl.where(keep, v / (1 - p), 0.0), mask=at < n)


@triton.jit
def quant_row(x, q, s, N, B: tl.constexpr):
    r = tl.program_id(0)
    at = tl.arange(0, B)
    v = tl.load(x + r * N + at, mask=at < N, other=0.0)
    m = tl.max(tl.abs(v), 0) / 127.0
    tl.store(s + r, m)
    tl.store(q + r * N + at, libdevice.nearbyint(v / m).to(tl.int8), mask=at < N)


@triton.autotune(
    configs=[
        triton.Config({"B": 128}, num_warps=2),
        triton.Config({"B": 256}, num_warps=4),
    ],
    key=["n"],
)
@triton.heuristics({"EVEN": lambda a: a["n"] % a["B"] == 0})
@triton.jit
def tuned(x, out, n, B: tl.constexpr, EVEN: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    if EVEN:
        tl.store(out + at, tl.load(x + at) * 2)
    else:
        tl.store(out + at, tl.load(x + at, mask=at < n) * 3, mask=at < n)


@triton.jit
def both_sums(a, b, d, out, scale, N: tl.constexpr, K: tl.constexpr):
    """Row sums less column sums of a scaled product, as in an attention's backward pass."""
    n, k = tl.arange(0, N), tl.arange(0, K)
    left = tl.load(a + n[:, None] * K + k[None, :])
    right = tl.load(b + k[:, None] * N + n[None, :])
    p = (tl.dot(left, right) - tl.load(d + n)[:, None]) * scale
    tl.store(out + n, tl.sum(p, 1) - tl.sum(p, 0))


@triton.jit
def fp4_to_bf16(x, out, B: tl.constexpr):
    """By bits: the exponent's bias is an addition of 0x3f00 to two halves."""
    at = tl.arange(0, B)
    code = tl.load(x + at)
    bits = ((code & 7).to(tl.uint16) << 6) | ((code & 8).to(tl.uint16) << 12)
    bits = tl.where((code & 6) != 0, bits + 0x3F00, bits)
    bits = tl.where((code & 7) == 1, 0x3F00 | (bits & 0x8000), bits)
    tl.store(out + at, bits.to(tl.bfloat16, bitcast=True))


@triton.jit
def host_desc(a, b, out, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    i = tl.program_id(0) * BM
    j = tl.program_id(1) * BN
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        acc = tl.dot(a.load([i, k]), b.load([k, j]), acc)
    out.store([i, j], acc.to(out.dtype))


@triton.jit
def tuples(ptrs, sizes, out, B: tl.constexpr):
    at = tl.arange(0, B)
    s = tl.zeros((B,), tl.float32)
    for i in tl.static_range(len(ptrs)):
        s += tl.load(ptrs[i] + at, mask=at < sizes[i], other=0.0)
    tl.store(out + at, s)


@triton.jit
def none_arg(x, bias, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    if bias is not None:
        v += tl.load(bias + at)
    tl.store(out + at, v)


@triton.jit
def layernorm_bwd(x, dy, w, mean, rstd, dx, dw, N, B: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, B)
    m = at < N
    xv = tl.load(x + row * N + at, mask=m, other=0).to(tl.float32)
    g = tl.load(dy + row * N + at, mask=m, other=0).to(tl.float32)
    ww = tl.load(w + at, mask=m).to(tl.float32)
    mu = tl.load(mean + row)
    rs = tl.load(rstd + row)
    xh = tl.where(m, (xv - mu) * rs, 0.0)
    wdy = tl.where(m, ww * g, 0.0)
    c1 = tl.sum(xh * wdy, 0) / N
    c2 = tl.sum(wdy, 0) / N
    tl.store(dx + row * N + at, (wdy - (xh * c1 + c2)) * rs, mask=m)
    tl.atomic_add(dw + at, g * xh, mask=m)


@triton.jit
def cross_entropy(logits, target, loss, V, B: tl.constexpr):
    row = tl.program_id(0)
    m = -float("inf")
    s = 0.0
    for o in range(0, V, B):
        at = o + tl.arange(0, B)
        v = tl.load(logits + row * V + at, mask=at < V, other=-float("inf")).to(tl.float32)
        n = tl.maximum(m, tl.max(v, 0))
        s = s * tl.exp(m - n) + tl.sum(tl.exp(v - n), 0)
        m = n
    t = tl.load(target + row)
    tl.store(loss + row, tl.log(s) + m - tl.load(logits + row * V + t).to(tl.float32))


@triton.jit
def conv1d(x, w, out, C: tl.constexpr, L, KW: tl.constexpr, B: tl.constexpr):
    c = tl.program_id(0)
    at = tl.program_id(1) * B + tl.arange(0, B)
    acc = tl.zeros((B,), tl.float32)
    for k in tl.static_range(KW):
        p = at + k - KW // 2
        acc += tl.load(x + c * L + p, mask=(p >= 0) & (p < L), other=0.0) * tl.load(w + c * KW + k)
    tl.store(out + c * L + at, acc * tl.sigmoid(acc), mask=at < L)


@triton.jit
def grouped_gemm(
    a, b, out, sizes, G: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BM: tl.constexpr
):
    pid = tl.program_id(0)
    first = 0
    done = 0
    n = tl.arange(0, N)
    k = tl.arange(0, K)
    for g in range(G):
        rows = tl.load(sizes + g)
        tiles = tl.cdiv(rows, BM)
        while (pid >= done) & (pid < done + tiles):
            m = first + (pid - done) * BM + tl.arange(0, BM)
            x = tl.load(a + m[:, None] * K + k[None, :], mask=m[:, None] < first + rows, other=0.0)
            y = tl.load(b + g * K * N + k[:, None] * N + n[None, :])
            tl.store(
                out + m[:, None] * N + n[None, :], tl.dot(x, y), mask=m[:, None] < first + rows
            )
            pid += tl.num_programs(0)
        first += rows
        done += tiles


@triton.jit
def stream_k(
    a, b, out, part, flags, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, S: tl.constexpr
):
    p = tl.program_id(0)
    m = tl.arange(0, M)
    n = tl.arange(0, N)
    per: tl.constexpr = K // S
    k = p * per + tl.arange(0, per)
    acc = tl.dot(tl.load(a + m[:, None] * K + k[None, :]), tl.load(b + k[:, None] * N + n[None, :]))
    if p == 0:
        for q in range(1, S):
            while tl.atomic_cas(flags + q, 1, 1) != 1:
                pass
            acc += tl.load(part + q * M * N + m[:, None] * N + n[None, :], cache_modifier=".cv")
        tl.store(out + m[:, None] * N + n[None, :], acc)
    else:
        tl.store(part + p * M * N + m[:, None] * N + n[None, :], acc, cache_modifier=".wt")
        tl.debug_barrier()
        tl.atomic_xchg(flags + p, 1)


@triton.jit
def w4a16(a, w, s, out, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m = tl.arange(0, M)
    n = tl.arange(0, N)
    kh = tl.arange(0, K // 2)
    p = tl.load(w + kh[:, None] * N + n[None, :])
    lo = (p & 15).to(tl.int8) - 8
    hi = (p >> 4).to(tl.int8) - 8
    q = tl.join(lo, hi)
    q = tl.permute(q, (0, 2, 1)).reshape(K, N)
    k = tl.arange(0, K)
    x = tl.load(a + m[:, None] * K + k[None, :])
    y = q.to(tl.float16) * tl.load(s + n)[None, :].to(tl.float16)
    tl.store(out + m[:, None] * N + n[None, :], tl.dot(x, y))


@triton.jit
def top1_route(x, w, idx, T, E: tl.constexpr, B: tl.constexpr):
    t = tl.program_id(0) * B + tl.arange(0, B)
    e = tl.arange(0, E)
    v = tl.load(x + t[:, None] * E + e[None, :], mask=t[:, None] < T, other=-1e9)
    for k in tl.static_range(4):
        m, i = tl.max(v, 1, return_indices=True)
        tl.store(w + t * 4 + k, m, mask=t < T)
        tl.store(idx + t * 4 + k, i, mask=t < T)
        v = tl.where(e[None, :] == i[:, None], -float("inf"), v)


@triton.jit
def f16_dot_chain(a, b, c, out, M: tl.constexpr):
    i = tl.arange(0, M)
    at = i[:, None] * M + i[None, :]
    x = tl.load(a + at)
    y = tl.load(b + at)
    w = tl.load(c + at)
    p = tl.dot(x, y).to(tl.float16)
    q = tl.dot(p, tl.trans(w)).to(tl.float16)
    tl.store(out + at, tl.dot(tl.trans(q), x))
