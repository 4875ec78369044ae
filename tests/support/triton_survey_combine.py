"""Kernels of a survey of Triton's language: reductions and scans with operations of their own,
sorting, gathering, blocks of three dimensions, atomics of every order. Device code alone; what they
must compute stands in survey_combine.py.
"""

import triton
import triton.language as tl


@triton.jit
def _product(a, b):
    return a * b


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def _xor(a, b):
    return a ^ b


@triton.jit
def _and(a, b):
    return a & b


@triton.jit
def _last(a, b):
    return b


@triton.jit
def _moments(m1, s1, n1, m2, s2, n2):
    d = m2 - m1
    n = n1 + n2
    share = tl.where(n == 0, 0.0, n2 / n)
    return m1 + d * share, s1 + s2 + d * d * n1 * share, n


@triton.jit
def _log_sum(m1, s1, m2, s2):
    m = tl.maximum(m1, m2)
    return m, s1 * tl.exp(m1 - m) + s2 * tl.exp(m2 - m)


@triton.jit
def _complex(ar, ai, br, bi):
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def _segment(f1, v1, f2, v2):
    return f1 | f2, tl.where(f2 != 0, v2, v1 + v2)


@triton.jit
def reductions(x, out, R: tl.constexpr, C: tl.constexpr, AXIS: tl.constexpr, L: tl.constexpr):
    v = tl.load(x + tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :])
    at = tl.arange(0, L)
    tl.store(out + 0 * L + at, tl.sum(v, AXIS).to(out.dtype.element_ty))
    tl.store(out + 1 * L + at, tl.max(v, AXIS).to(out.dtype.element_ty))
    tl.store(out + 2 * L + at, tl.min(v, AXIS).to(out.dtype.element_ty))
    tl.store(out + 3 * L + at, tl.argmax(v, AXIS).to(out.dtype.element_ty))
    tl.store(out + 4 * L + at, tl.argmin(v, AXIS, tie_break_left=False).to(out.dtype.element_ty))
    tl.store(out + 5 * L + at, tl.reduce(v, AXIS, _larger).to(out.dtype.element_ty))


@triton.jit
def bits(x, out, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, B))
    tl.store(out + 0, tl.xor_sum(v, 0))
    tl.store(out + 1, tl.reduce(v, 0, _and))
    tl.store(out + 2, tl.reduce_or(v, 0))
    tl.store(out + 3, tl.sum(v, 0))
    tl.store(out + 4, tl.reduce(v, 0, _product))


@triton.jit
def moments(x, out, R: tl.constexpr, C: tl.constexpr):
    r = tl.arange(0, R)
    v = tl.load(x + r[:, None] * C + tl.arange(0, C)[None, :])
    ones = tl.full((R, C), 1.0, tl.float32)
    m, s, n = tl.reduce((v, tl.zeros_like(v), ones), 1, _moments)
    tl.store(out + r, m)
    tl.store(out + R + r, s / n)
    a, b = tl.reduce((v, ones), 1, _log_sum)
    tl.store(out + 2 * R + r, a + tl.log(b))


@triton.jit
def scans(x, y, out, R: tl.constexpr, C: tl.constexpr, AXIS: tl.constexpr, REV: tl.constexpr):
    at = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    v = tl.load(x + at)
    N: tl.constexpr = R * C
    tl.store(out + at, tl.cumsum(v, AXIS, reverse=REV))
    tl.store(out + N + at, tl.associative_scan(v, AXIS, _larger, reverse=REV))
    real, imaginary = tl.associative_scan((v, tl.load(y + at)), AXIS, _complex, reverse=REV)
    tl.store(out + 2 * N + at, real)
    tl.store(out + 3 * N + at, imaginary)
    tl.store(out + 4 * N + at, tl.associative_scan(v, AXIS, _last, reverse=REV))


@triton.jit
def integer_scans(x, f, out, C: tl.constexpr, REV: tl.constexpr):
    i = tl.arange(0, C)
    v = tl.load(x + i)
    tl.store(out + i, tl.cumsum(v, 0, reverse=REV))
    tl.store(out + C + i, tl.associative_scan(v, 0, _xor, reverse=REV))
    tl.store(out + 2 * C + i, tl.cumprod(v, 0, reverse=REV))
    _, sums = tl.associative_scan((tl.load(f + i), v), 0, _segment, reverse=REV)
    tl.store(out + 3 * C + i, sums)


@triton.jit
def sorts(x, out, B: tl.constexpr, DOWN: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(out + i, tl.sort(tl.load(x + i), descending=DOWN))


@triton.jit
def topk(x, out, B: tl.constexpr, K: tl.constexpr):
    tl.store(out + tl.arange(0, K), tl.topk(tl.load(x + tl.arange(0, B)), K))


@triton.jit
def masked_histogram(x, m, out, B: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, B)
    counts = tl.histogram(tl.load(x + i), N, mask=tl.load(m + i) != 0)
    tl.store(out + tl.arange(0, N), counts)


@triton.jit
def gathers(x, i, out, A: tl.constexpr, B: tl.constexpr):
    b = tl.arange(0, B)
    tl.store(out + b, tl.gather(tl.load(x + tl.arange(0, A)), tl.load(i + b), 0))


@triton.jit
def blocks(x, out, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    b = tl.arange(0, B)
    at = (tl.arange(0, A)[:, None, None] * B + b[None, :, None]) * C
    at += tl.arange(0, C)[None, None, :]
    v = tl.load(x + at)
    N: tl.constexpr = A * B * C
    tl.store(out + b, tl.sum(tl.sum(v, 2), 0))
    w = tl.reshape(tl.trans(v, 1, 0, 2), (B, A * C))
    tl.store(out + B + b[:, None] * (A * C) + tl.arange(0, A * C)[None, :], w)
    tl.store(out + B + N + at, tl.broadcast_to(tl.max(v, 1, keep_dims=True), (A, B, C)) - v)
    both = tl.cat(tl.ravel(v), tl.ravel(v), can_reorder=True)
    tl.store(out + B + 2 * N, tl.sum(both, 0))
    tl.store(out + B + 2 * N + 1 + at, tl.expand_dims(tl.sum(v, 1), 1) + tl.zeros_like(v))


@triton.jit
def scalar_atomics(x, out, OP: tl.constexpr):
    v = tl.load(x + tl.program_id(0))
    if OP == "add":
        tl.atomic_add(out, v)
    elif OP == "max":
        tl.atomic_max(out, v)
    else:
        tl.atomic_min(out, v)


@triton.jit
def ordered_atomics(x, out, old, n, B: tl.constexpr, SEM: tl.constexpr, SCOPE: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    mask = at < n
    v = tl.load(x + at, mask=mask)
    tl.store(old + at, tl.atomic_add(out + at, v, mask=mask, sem=SEM, scope=SCOPE), mask=mask)


@triton.jit
def float_maximum(x, out, B: tl.constexpr):
    v = tl.max(tl.load(x + tl.program_id(0) * B + tl.arange(0, B)), 0)
    old = tl.load(out)
    done = False
    while not done:
        new = tl.maximum(old.to(tl.float32, bitcast=True), v).to(tl.int32, bitcast=True)
        seen = tl.atomic_cas(out, old, new)
        done = seen == old
        old = seen


@triton.jit
def printed(x, out, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, B))
    tl.device_print("v", v)
    tl.store(out + tl.arange(0, B), v)


@triton.jit
def asserted(x, out, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, B))
    tl.device_assert(v < 10, "too large")
    tl.store(out + tl.arange(0, B), v)
