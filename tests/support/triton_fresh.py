"""Kernels written only to try the emulator: many features, one kernel each, nothing of the engine.

They avoid what Triton's interpreter is known to get wrong (rounding to bf16, FP8 casts of
subnormals), because it is the judge.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def _welford(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
    n = n_a + n_b
    delta = mean_b - mean_a
    share = tl.where(n == 0, 0.0, n_b / n)
    return mean_a + delta * share, m2_a + m2_b + delta * delta * n_a * share, n


@triton.jit
def layer_norm(x, out, n, B: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, B)
    v = tl.load(x + row * n + at, mask=at < n, other=0.0)
    one = tl.where(at < n, 1.0, 0.0)
    mean, m2, count = tl.reduce((v, tl.zeros_like(v), one), 0, _welford)
    tl.store(out + row * n + at, (v - mean) / tl.sqrt(m2 / count + 1e-5), mask=at < n)


@triton.jit
def int4_matmul(x, w, scale, out, K: tl.constexpr):
    m = tl.arange(0, 32)
    n = tl.arange(0, 32)
    k = tl.arange(0, K)
    packed = tl.load(w + (k // 8)[:, None] * 32 + n[None, :])
    code = (packed >> ((k % 8) * 4)[:, None]) & 15
    value = ((code.to(tl.int8) - 8).to(tl.float16)) * tl.load(scale + n)[None, :]
    left = tl.load(x + m[:, None] * K + k[None, :])
    tl.store(out + m[:, None] * 32 + n[None, :], tl.dot(left, value.to(tl.float16)))


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def scans(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    tl.store(out + at, tl.associative_scan(v, 0, _larger))
    tl.store(out + B + at, tl.cumsum(v, 0, reverse=True))
    tl.store(out + 2 * B + at, tl.cumprod(v * 0.01 + 1.0, 0))


@triton.jit
def integer_atomics(x, i, out):
    at = tl.arange(0, 128)
    v = tl.load(x + at)  # not negative: Triton 3.6 and 3.9 reduce signed minima as unsigned first
    where = tl.load(i + at)
    tl.atomic_add(out + where, v)
    tl.atomic_min(out + 16 + where, v)
    tl.atomic_max(out + 32 + where, v)
    tl.atomic_and(out + 48 + where, v)
    tl.atomic_or(out + 64 + where, v)
    tl.atomic_xor(out + 80 + where, v)


@triton.jit
def batched_dot(a, b, out):
    n = tl.arange(0, 4)[:, None, None]
    r = tl.arange(0, 16)[None, :, None]
    c = tl.arange(0, 16)[None, None, :]
    at = n * 256 + r * 16 + c
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at)))


@triton.jit
def narrow_integers(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    c = tl.minimum(a, b) * 3 + (a >> 2) - (b << 1) + tl.maximum(a ^ b, a & b)
    tl.store(out + at, tl.where(a > b, c, ~c))


@triton.jit
def half_math(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    c = tl.fma(a, b, a) - tl.abs(b) * a
    d = tl.maximum(c, b) + tl.minimum(a, c)
    tl.store(out + at, tl.where(d < a, d * c, d + tl.exp(a.to(tl.float32)).to(tl.float16)))


@triton.jit
def double_math(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    c = tl.sqrt(tl.abs(a)) / b + tl.floor(a * 10.0)
    d = tl.fma(a, b, c) + tl.where(a > b, tl.ceil(b), 1.0 / a)
    tl.store(out + at, d + b.to(tl.int32).to(tl.float64) + a.to(tl.float32).to(tl.float64))


@triton.jit
def bit_tricks(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    tl.store(out + at, tl.umulhi(a.to(tl.uint32), 0x9E3779B9).to(tl.int32))
    tl.store(out + B + at, (a << 7) | ((a.to(tl.uint32) >> 25).to(tl.int32)))
    tl.store(out + 2 * B + at, a.to(tl.int8).to(tl.int32) * a.to(tl.int16).to(tl.int32))


@triton.jit
def long_integers(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    c = a * b + (a >> 5) - (b << 3)
    d = tl.where(a < b, c // b, c % b)
    tl.store(out + at, tl.maximum(d, a) ^ tl.minimum(c, b))


@triton.jit
def unsigned_division(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    tl.store(out + at, (a // b) * 7 + a % b)


@triton.jit
def shuffles(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    f = tl.flip(v, 0)
    mixed = tl.reshape(tl.interleave(v, f), (2, B))
    a, b = tl.split(tl.trans(mixed))
    both = tl.join(a, b)
    wide = tl.reshape(both, (B // 8, 2, 8))
    tl.store(out + tl.arange(0, 2 * B), tl.reshape(tl.permute(wide, (1, 2, 0)), (2 * B,)))


@triton.jit
def random_walk(out, seed, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    total = tl.zeros((B,), tl.int32)
    for step in range(5):
        total += (tl.randint(seed, at + step * 1000) & 7).to(tl.int32)
    tl.store(out + at, total)


@triton.jit
def collatz(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    steps = tl.zeros((B,), tl.int32)
    while tl.max((v > 1).to(tl.int32), 0) > 0:
        odd = v & 1
        steps += tl.where(v > 1, 1, 0)
        v = tl.where(v > 1, tl.where(odd == 1, 3 * v + 1, v // 2), v)
    tl.store(out + at, steps)


@triton.jit
def branches(x, out, n, B: tl.constexpr):
    program = tl.program_id(0) + 2 * tl.program_id(1) + 6 * tl.program_id(2)
    at = program * B + tl.arange(0, B)
    v = tl.load(x + at)
    if program % 3 == 0:
        v = v * 2
        if tl.sum(v, 0) > n:
            v = -v
    elif program % 3 == 1:
        for _ in range(program):
            v = v + 1.5
    else:
        v = tl.where(v > 0, v, tl.num_programs(0).to(tl.float32))
    tl.store(out + at, v)


@triton.jit
def reductions(x, out, B: tl.constexpr):
    r = tl.arange(0, 16)
    at = tl.arange(0, B)
    v = tl.load(x + r[:, None] * B + at[None, :])
    tl.store(out + r, tl.argmin(v, 1).to(tl.float32))
    tl.store(out + 16 + r, tl.min(v, 1))
    tl.store(out + 32 + r, tl.argmax(tl.abs(v), 1).to(tl.float32))
    bits = v.to(tl.int32, bitcast=True)
    tl.store(out + 48 + r, (tl.xor_sum(bits, 1) & 0xFFFF).to(tl.float32))
    tl.store(out + 64 + at, tl.sum(v, 0))


@triton.jit
def nan_rules(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    tl.store(out + at, tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL))
    tl.store(out + B + at, tl.where(a != a, 1.0, tl.where(a > b, 2.0, 3.0)))


@triton.jit
def special_functions(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    tl.store(out + at, tl.sin(v) + tl.cos(3.0 * v))
    tl.store(out + B + at, libdevice.tanh(v) * libdevice.erf(v))
    tl.store(out + 2 * B + at, libdevice.pow(tl.abs(v) + 0.5, 1.7))
    tl.store(out + 3 * B + at, tl.log(tl.abs(v) + 1e-3) + tl.exp2(v) + tl.log2(v * v + 1.0))
    tl.store(
        out + 4 * B + at, libdevice.atan2(v, 1.5) + libdevice.expm1(v) + libdevice.rsqrt(v * v)
    )


@triton.jit
def gather_scatter(x, i, out, B: tl.constexpr):
    at = tl.arange(0, B)
    where = tl.load(i + at)
    v = tl.gather(tl.load(x + at), where.to(tl.int32), 0)
    tl.store(out + where, v, mask=(where % 3) != 0)


@triton.jit
def descriptors(x, out, M, N):
    source = tl.make_tensor_descriptor(x, [M, N], [N, 1], [16, 32])
    target = tl.make_tensor_descriptor(out, [M, N], [N, 1], [16, 32])
    for c in range(0, N, 32):
        target.store([tl.program_id(0) * 16, c], source.load([tl.program_id(0) * 16, c]) * 2.0)


@triton.jit
def byte_matmul(a, b, s, out, K: tl.constexpr):
    m = tl.arange(0, 64)
    n = tl.arange(0, 32)
    total = tl.zeros((64, 32), tl.int32)
    for k0 in range(0, K, 64):
        k = k0 + tl.arange(0, 64)
        left = tl.load(a + m[:, None] * K + k[None, :])
        right = tl.load(b + k[:, None] * 32 + n[None, :])
        total += tl.dot(left, right, out_dtype=tl.int32)
    tl.store(out + m[:, None] * 32 + n[None, :], total.to(tl.float32) * tl.load(s + n)[None, :])


@triton.jit
def float_matmul(a, b, out, K: tl.constexpr, PRECISION: tl.constexpr):
    m = tl.arange(0, 32)
    k = tl.arange(0, K)
    left = tl.load(a + m[:, None] * K + k[None, :])
    right = tl.load(b + k[:, None] * 32 + m[None, :])
    product = tl.dot(left, right, input_precision=PRECISION)
    tl.store(out + m[:, None] * 32 + m[None, :], product)


@triton.jit
def sort_rows(x, out, B: tl.constexpr):
    r = tl.arange(0, 4)
    at = tl.arange(0, B)
    where = r[:, None] * B + at[None, :]
    tl.store(out + where, tl.sort(tl.load(x + where), 1, descending=True))


@triton.jit
def ticket(counter, out, n):
    mine = tl.atomic_add(counter, 1)
    total = 0
    for k in range(n):
        total += k * mine
    tl.store(out + mine, total)


@triton.jit
def wait_for_all(flags, x, out, n):
    me = tl.program_id(0)
    tl.store(x + me, me * 10)
    tl.atomic_add(flags, 1)
    while tl.atomic_add(flags, 0) < n:
        pass
    tl.store(out + me, tl.load(x + (me + 1) % n, volatile=True))
