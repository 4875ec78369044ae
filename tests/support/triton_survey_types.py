"""Kernels of a survey of Triton's language: every operator in every type, products of every layout,
masks, scalars, early returns. Device code alone; what they must compute stands in survey_types.py.
"""

import triton
import triton.language as tl


@triton.jit
def floats(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    every: tl.constexpr = tl.PropagateNan.ALL
    tl.store(out + 0 * B + at, a + b)
    tl.store(out + 1 * B + at, a - b)
    tl.store(out + 2 * B + at, a * b)
    tl.store(out + 3 * B + at, tl.abs(a))
    tl.store(out + 4 * B + at, -a)
    tl.store(out + 5 * B + at, tl.maximum(a, b))
    tl.store(out + 6 * B + at, tl.minimum(a, b))
    tl.store(out + 7 * B + at, tl.maximum(a, b, propagate_nan=every))
    tl.store(out + 8 * B + at, tl.minimum(a, b, propagate_nan=every))
    tl.store(out + 9 * B + at, tl.where(a < b, a, b))
    tl.store(out + 10 * B + at, tl.where(a != b, a, b))
    tl.store(out + 11 * B + at, tl.where((a >= b) | (a > 0.5), a, 1))
    tl.store(out + 12 * B + at, (a == a).to(out.dtype.element_ty))
    tl.store(out + 13 * B + at, tl.clamp(a, -1.0, 1.0, propagate_nan=every))
    tl.store(out + 14 * B + at, a.to(tl.int32).to(out.dtype.element_ty))


@triton.jit
def integers(x, y, out, B: tl.constexpr, BITS: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    by = b & (BITS - 1)
    tl.store(out + 0 * B + at, a + b)
    tl.store(out + 1 * B + at, a - b)
    tl.store(out + 2 * B + at, a * b)
    tl.store(out + 3 * B + at, a // b)
    tl.store(out + 4 * B + at, a % b)
    tl.store(out + 5 * B + at, (a & b) ^ (a | ~b))
    tl.store(out + 6 * B + at, tl.minimum(a, b) ^ -a)
    tl.store(out + 7 * B + at, tl.maximum(a, b))
    tl.store(out + 8 * B + at, a << by)
    tl.store(out + 9 * B + at, a >> by)
    tl.store(out + 10 * B + at, (a <= b).to(out.dtype.element_ty))
    tl.store(out + 11 * B + at, a // 7)
    tl.store(out + 12 * B + at, a % 10)
    tl.store(out + 13 * B + at, a * 5 + b * 3)


@triton.jit
def rounded(x, out, B: tl.constexpr, HOW: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(x + at).to(out.dtype.element_ty, fp_downcast_rounding=HOW))


@triton.jit
def masks(x, out, n, B: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(x + at, mask=at < n, other=7))
    tl.store(out + B + at, tl.load(x + at, mask=(at % 3 == 0) & (at < n), other=1))
    c = tl.load(x + at + 1, mask=at + 1 < n, other=0)
    tl.store(out + 2 * B + at, c, mask=at % 2 == 0)
    tl.store(out + 3 * B + at, tl.load(x + (n - 1 - at), mask=at < n, other=3))
    tl.store(out + 4 * B + at, tl.load(x + at * 2, mask=at * 2 < n, other=5))


@triton.jit
def numbers(out, a, b, c, d, e, f):
    tl.store(out + 0, a.to(tl.float64))
    tl.store(out + 1, f.to(tl.float64))
    tl.store(out + 2, (a * b + c).to(tl.float64))
    tl.store(out + 3, (a % 5).to(tl.float64))
    tl.store(out + 4, (a // -3).to(tl.float64))
    tl.store(out + 5, (d * e).to(tl.float64))
    tl.store(out + 6, tl.sqrt(d * d + 1).to(tl.float64))
    tl.store(out + 7, tl.minimum(a, c).to(tl.float64))
    tl.store(out + 8, (a << 3).to(tl.float64) + (c >> 2).to(tl.float64))


@triton.jit
def early(x, out, n, B: tl.constexpr):
    p = tl.program_id(0)
    if p >= n:
        return
    v = tl.load(x + p * B + tl.arange(0, B))
    if p % 2 == 1:
        tl.store(out + p * B + tl.arange(0, B), -v)
        return
    for i in range(p):
        v += i
        if i == 3:
            v = v * 2
    tl.store(out + p * B + tl.arange(0, B), v)


@triton.jit
def nested(x, out, n, m, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    t = tl.zeros((B,), tl.float32)
    for i in range(0, n, 2):
        for j in range(m, 0, -1):
            if (i + j) % 3 == 0:
                t += v * j
            elif i > j:
                t -= v
            else:
                t = t * 0.5
        k = i
        while k > 0:
            t += 1
            k = k // 2
    tl.store(out + at, t)


@triton.jit
def far_index(x, out, base, step, B: tl.constexpr):
    at = tl.arange(0, B).to(tl.int64)
    place = base + at * step
    tl.store(out + at, tl.load(x + (place - base)))
    tl.store(out + B + at, tl.load(x + tl.where(place > 2147483647, at, B - 1 - at)))


@triton.jit
def product(
    a, b, out, sam, sak, sbk, sbn, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    BK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    m = tl.arange(0, M)
    n = tl.arange(0, N)
    acc = tl.zeros((M, N), out.dtype.element_ty)
    for k0 in range(0, K, BK):
        k = k0 + tl.arange(0, BK)
        x = tl.load(a + m[:, None] * sam + k[None, :] * sak)
        y = tl.load(b + k[:, None] * sbk + n[None, :] * sbn)
        acc = tl.dot(x, y, acc, input_precision=P, out_dtype=out.dtype.element_ty)
    tl.store(out + m[:, None] * N + n[None, :], acc)


@triton.jit
def product_of_batches(
    a, b, out, B: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr
):
    i = tl.arange(0, B)[:, None, None]
    m = tl.arange(0, M)[None, :, None]
    k = tl.arange(0, K)
    x = tl.load(a + (i * M + m) * K + k[None, None, :])
    n = tl.arange(0, N)[None, None, :]
    y = tl.load(b + (i * K + k[None, :, None]) * N + n)
    tl.store(out + (i * M + m) * N + n, tl.dot(x, y, input_precision="ieee"))


@triton.jit
def tiles_by_descriptor(
    a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):  # fmt: skip
    left = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    right = tl.make_tensor_descriptor(b, [N, K], [K, 1], [BN, BK])
    result = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BM, BN])
    across = tl.cdiv(N, BN)
    for t in tl.range(tl.program_id(0), tl.cdiv(M, BM) * across, tl.num_programs(0)):
        i = t // across * BM
        j = t % across * BN
        acc = tl.zeros((BM, BN), tl.float32)
        for k in range(tl.cdiv(K, BK)):
            acc = tl.dot(left.load([i, k * BK]), right.load([j, k * BK]).T, acc)
        result.store([i, j], acc.to(c.dtype.element_ty))


@triton.jit
def rows_by_descriptor(x, at, out, R, C: tl.constexpr, B: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [R, C], [C, 1], [1, C])
    result = tl.make_tensor_descriptor(out, [B, C], [C, 1], [B, C])
    result.store([0, 0], source.gather(tl.load(at + tl.arange(0, B)), 0) * 2)


@triton.jit
def assembly(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    s = tl.inline_asm_elementwise(
        "v_sad_u8 $0, $1, $2, 5", "=v,v,v", [a, b], dtype=tl.int32, is_pure=True, pack=1
    )
    tl.store(out + at, s)
    s = tl.inline_asm_elementwise(
        "v_sad_u16 $0, $1, $2, 5", "=v,v,v", [a, b], dtype=tl.int32, is_pure=True, pack=1
    )
    tl.store(out + B + at, s)
    s = tl.inline_asm_elementwise(
        "v_sad_hi_u8 $0, $1, $2, 5", "=v,v,v", [a, b], dtype=tl.int32, is_pure=True, pack=1
    )
    tl.store(out + 2 * B + at, s)
    s = tl.inline_asm_elementwise(
        "v_msad_u8 $0, $1, $2, 5", "=v,v,v", [a, b], dtype=tl.int32, is_pure=True, pack=1
    )
    tl.store(out + 3 * B + at, s)
    s = tl.inline_asm_elementwise(
        "v_dot8_i32_i4 $0, $1, $2, 7", "=v,v,v", [a, b], dtype=tl.int32, is_pure=True, pack=1
    )
    tl.store(out + 4 * B + at, s)
    s = tl.inline_asm_elementwise(
        "v_lerp_u8 $0, $1, $2, 1", "=v,v,v", [a, b], dtype=tl.int32, is_pure=True, pack=1
    )
    tl.store(out + 5 * B + at, s)
    p, q = tl.inline_asm_elementwise(
        "v_max3_i32 $0, $2, $3, 0\n v_and_or_b32 $1, $2, $3, 1",
        "=&v,=&v,v,v",
        [a, b],
        dtype=(tl.int32, tl.int32),
        is_pure=True,
        pack=1,
    )
    tl.store(out + 6 * B + at, p)
    tl.store(out + 7 * B + at, q)


@triton.jit
def clock(out):
    first = tl.extra.hip.memrealtime()
    tl.store(out, first >= 0)
    tl.store(out + 1, tl.extra.hip.memrealtime() >= first)
