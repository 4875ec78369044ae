"""Kernels of a survey of Triton's language: moving, reducing and sorting blocks, atomics, loops,
calls. Device code alone; what they must compute stands in survey_blocks.py.
"""

import triton
import triton.language as tl


@triton.jit
def sorts(x, out, B: tl.constexpr, R: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    at = tl.arange(0, B)[None, :]
    v = tl.load(x + r * B + at)
    tl.store(out + r * B + at, tl.sort(v, 1))


@triton.jit
def topk(x, out, B: tl.constexpr, R: tl.constexpr, K: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    at = tl.arange(0, B)[None, :]
    v = tl.load(x + r * B + at)
    tl.store(out + r * K + tl.arange(0, K)[None, :], tl.topk(v, K))


@triton.jit
def histogram(x, out, n, B: tl.constexpr, BINS: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    tl.store(out + tl.arange(0, BINS), tl.histogram(v, BINS))
    tl.store(out + BINS + tl.arange(0, BINS), tl.histogram(v, BINS, mask=at < n))


@triton.jit
def _affine(a1, b1, a2, b2):
    return a1 * a2, a2 * b1 + b2


@triton.jit
def linear_scan(a, b, out, B: tl.constexpr, R: tl.constexpr, REV: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    at = tl.arange(0, B)[None, :]
    x = tl.load(a + r * B + at)
    y = tl.load(b + r * B + at)
    _, h = tl.associative_scan((x, y), 1, _affine, reverse=REV)
    tl.store(out + r * B + at, h)


@triton.jit
def arg_ties(x, out, B: tl.constexpr, R: tl.constexpr):
    r = tl.arange(0, R)
    at = tl.arange(0, B)
    v = tl.load(x + r[:, None] * B + at[None, :])
    _, highest = tl.max(v, 1, return_indices=True)
    _, lowest = tl.min(v, 1, return_indices=True)
    tl.store(out + r, highest)
    tl.store(out + R + r, lowest)
    tl.store(out + 2 * R + r, tl.argmax(v, 1))
    tl.store(out + 3 * R + at, tl.argmin(v, 0))


@triton.jit
def reduce3d(x, out, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, a, b, c):
    i = tl.arange(0, A)[:, None, None]
    j = tl.arange(0, B)[None, :, None]
    k = tl.arange(0, C)[None, None, :]
    mask = (i < a) & (j < b) & (k < c)
    v = tl.load(x + (i * b + j) * c + k, mask=mask, other=0.0)
    s = tl.sum(v, 1)
    ii = tl.arange(0, A)[:, None]
    kk = tl.arange(0, C)[None, :]
    tl.store(out + ii * c + kk, s, mask=(ii < a) & (kk < c))


@triton.jit
def permute3d(x, out, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    i = tl.arange(0, A)[:, None, None]
    j = tl.arange(0, B)[None, :, None]
    k = tl.arange(0, C)[None, None, :]
    v = tl.load(x + (i * B + j) * C + k)
    w = tl.permute(v, (2, 0, 1))
    i2 = tl.arange(0, C)[:, None, None]
    j2 = tl.arange(0, A)[None, :, None]
    k2 = tl.arange(0, B)[None, None, :]
    tl.store(out + (i2 * A + j2) * B + k2, w)


@triton.jit
def join_split(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    wide = tl.arange(0, 2 * B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    p, q = tl.split(tl.join(a, b) * 2)
    tl.store(out + at, p - q)
    tl.store(out + B + wide, tl.interleave(a, b))
    tl.store(out + 3 * B + at, tl.flip(a, 0))
    tl.store(out + 4 * B + at, tl.ravel(tl.trans(tl.reshape(a, (B // 4, 4)))))


@triton.jit
def gathers(x, i, out, R: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    at = tl.arange(0, B)[None, :]
    c = tl.arange(0, C)[None, :]
    v = tl.load(x + r * B + at)
    w = tl.load(i + r * C + c)
    tl.store(out + r * C + c, tl.gather(v, w, 1))


@triton.jit
def gathers0(x, i, out, R: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    at = tl.arange(0, B)[None, :]
    c = tl.arange(0, C)[:, None]
    v = tl.load(x + r * B + at)
    w = tl.load(i + c * B + at)
    tl.store(out + c * B + at, tl.gather(v, w, 0))


@triton.jit
def philox(out, seed, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(out + at, tl.rand(seed, at))
    n = tl.num_programs(0) * B
    tl.store(out + n + at, tl.randn(seed, at))
    a, b, c, d = tl.rand4x(seed, at)
    tl.store(out + 2 * n + at, a + b + c + d)


@triton.jit
def philox_int(out, seed, B: tl.constexpr):
    at = tl.arange(0, B)
    a, b, c, d = tl.randint4x(seed, at)
    tl.store(out + at, a)
    tl.store(out + B + at, b)
    tl.store(out + 2 * B + at, c)
    tl.store(out + 3 * B + at, d)


@triton.jit
def atomics(x, i, out, old, n, B: tl.constexpr, OP: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    mask = at < n
    v = tl.load(x + at, mask=mask, other=0)
    w = tl.load(i + at, mask=mask, other=0)
    if OP == "add":
        r = tl.atomic_add(out + w, v, mask=mask)
    elif OP == "max":
        r = tl.atomic_max(out + w, v, mask=mask)
    elif OP == "min":
        r = tl.atomic_min(out + w, v, mask=mask)
    elif OP == "and":
        r = tl.atomic_and(out + w, v, mask=mask)
    elif OP == "or":
        r = tl.atomic_or(out + w, v, mask=mask)
    elif OP == "xor":
        r = tl.atomic_xor(out + w, v, mask=mask)
    else:
        r = tl.atomic_xchg(out + w, v, mask=mask)
    tl.store(old + at, r, mask=mask)


@triton.jit
def cas_each(out, old, cmp, val, B: tl.constexpr):
    at = tl.arange(0, B)
    r = tl.atomic_cas(out + at, tl.load(cmp + at), tl.load(val + at))
    tl.store(old + at, r)


@triton.jit
def newton(x, out, steps, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    g = a
    err = tl.max(tl.abs(g * g - a), 0)
    n = 0
    while (err > 1e-3) & (n < 60):
        g = 0.5 * (g + a / g)
        err = tl.max(tl.abs(g * g - a) / a, 0)
        n += 1
    tl.store(out + at, g)
    tl.store(steps, n)


@triton.jit
def gcd(x, y, out, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    while tl.sum((b != 0).to(tl.int32), 0) > 0:
        t = tl.where(b != 0, a % tl.where(b == 0, 1, b), a)
        a = tl.where(b != 0, b, a)
        b = tl.where(b != 0, t, b)
    tl.store(out + at, a)


@triton.jit
def far(x, out, row, stride, B: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(x + row.to(tl.int64) * stride + at))


@triton.jit
def grid3(x, out, A, Bn, C, B: tl.constexpr):
    i = tl.program_id(0)
    j = tl.program_id(1)
    k = tl.program_id(2)
    at = ((i * tl.num_programs(1) + j) * tl.num_programs(2) + k) * B + tl.arange(0, B)
    tl.store(out + at, tl.load(x + at) * (i + 10 * j + 100 * k))


@triton.jit
def inline_asm(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    r = tl.inline_asm_elementwise(
        "v_add_u32_e32 $0, $1, $2", "=v,v,v", [a, b], dtype=tl.int32, is_pure=True, pack=1
    )
    tl.store(out + at, r)
    s = tl.inline_asm_elementwise(
        "v_mul_hi_u32 $0, $1, $2\n v_bfrev_b32_e32 $0, $0",
        "=&v,v,v",
        [a, b],
        dtype=tl.int32,
        is_pure=True,
        pack=1,
    )
    tl.store(out + B + at, s)


@triton.jit
def bools(x, m, out, om, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    k = tl.load(m + at)
    tl.store(out + at, tl.where(k, a, -a))
    tl.store(om + at, (a > 0) & k)


@triton.jit
def modifiers(x, out, n, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    a = tl.load(x + at, mask=at < n, cache_modifier=".cg", eviction_policy="evict_first")
    b = tl.load(x + at, mask=at < n, cache_modifier=".cv", volatile=True)
    tl.store(out + at, a + b, mask=at < n, cache_modifier=".wt")


@triton.jit
def static_unroll(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    for i in tl.static_range(5):
        v = v * 1.5 - i
        if i == 2:
            v = -v
    tl.static_assert(B >= 64)
    tl.device_assert(v == v)
    tl.store(out + at, v)


@triton.jit(noinline=True)
def helper(a, n):
    s = a * 0.5
    for i in range(n):
        s = s * a + i
    return s


@triton.jit
def noinline(x, out, n, B: tl.constexpr):
    p = tl.program_id(0)
    a = tl.load(x + p)
    r = helper(a, n) + helper(a + 1.0, n + 1)
    tl.store(out + p, r)


@triton.jit(noinline=True)
def put(out, p, v):
    tl.store(out + p, v)


@triton.jit
def noinline2(x, out, B: tl.constexpr):
    p = tl.program_id(0)
    a = tl.load(x + p * B + tl.arange(0, B))
    put(out, p, tl.sum(a, 0))


@triton.jit
def cumulative(x, out, R: tl.constexpr, B: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    at = tl.arange(0, B)[None, :]
    v = tl.load(x + r * B + at)
    tl.store(out + r * B + at, tl.cumsum(v, 0))
    tl.store(out + R * B + r * B + at, tl.cumprod(v, 1))
    tl.store(out + 2 * R * B + r * B + at, tl.cumsum(v, 1, reverse=True))


@triton.jit
def _maxidx(v1, i1, v2, i2):
    take = (v1 > v2) | ((v1 == v2) & (i1 < i2))
    return tl.where(take, v1, v2), tl.where(take, i1, i2)


@triton.jit
def custom_reduce(x, val, idx, R: tl.constexpr, B: tl.constexpr):
    r = tl.arange(0, R)
    at = tl.arange(0, B)
    v = tl.load(x + r[:, None] * B + at[None, :])
    i = tl.broadcast_to(at[None, :], (R, B))
    m, k = tl.reduce((v, i), 1, _maxidx)
    tl.store(val + r, m)
    tl.store(idx + r, k)


@triton.jit
def transpose_tile(x, out, M, N, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    j = tl.program_id(1) * B + tl.arange(0, B)
    v = tl.load(x + i[:, None] * N + j[None, :], mask=(i[:, None] < M) & (j[None, :] < N))
    tl.store(
        out + j[:, None] * M + i[None, :], tl.trans(v), mask=(j[:, None] < N) & (i[None, :] < M)
    )


@triton.jit
def strided3d(x, out, s0, s1, s2, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, b, c):
    i = tl.program_id(0)
    j = tl.arange(0, B)[:, None]
    k = tl.arange(0, C)[None, :]
    m = (j < b) & (k < c)
    v = tl.load(x + i * s0 + j * s1 + k * s2, mask=m, other=0)
    tl.store(out + (i * b + j) * c + k, v + 1, mask=m)


@triton.jit
def bitonic_i64(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    key = tl.load(x + at).to(tl.int64) * 4294967296 + at
    tl.store(out + at, tl.sort(key, descending=True) & 0xFFFFFFFF)
