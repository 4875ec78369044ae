"""Kernels of a survey of Triton's language: arithmetic, conversions, library functions. Device code
alone; what they must compute stands in survey_numbers.py.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def inside_one(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    tl.store(out + 0 * B + at, libdevice.acos(v))
    tl.store(out + 1 * B + at, libdevice.asin(v))
    tl.store(out + 2 * B + at, libdevice.atanh(v))
    tl.store(out + 3 * B + at, libdevice.erfinv(v))
    tl.store(out + 4 * B + at, libdevice.tan(v))
    tl.store(out + 5 * B + at, libdevice.atan(v))
    tl.store(out + 6 * B + at, libdevice.sin(v))
    tl.store(out + 7 * B + at, libdevice.cos(v))
    tl.store(out + 8 * B + at, libdevice.sinh(v))
    tl.store(out + 9 * B + at, libdevice.cosh(v))
    tl.store(out + 10 * B + at, libdevice.tanh(v))
    tl.store(out + 11 * B + at, libdevice.erf(v))
    tl.store(out + 12 * B + at, libdevice.erfc(v))
    tl.store(out + 13 * B + at, libdevice.expm1(v))
    tl.store(out + 14 * B + at, libdevice.log1p(v))


@triton.jit
def positive(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    tl.store(out + 0 * B + at, libdevice.acosh(v + 1.0))
    tl.store(out + 1 * B + at, libdevice.log(v))
    tl.store(out + 2 * B + at, libdevice.log2(v))
    tl.store(out + 3 * B + at, libdevice.log10(v))
    tl.store(out + 4 * B + at, libdevice.sqrt(v))
    tl.store(out + 5 * B + at, libdevice.rsqrt(v))
    tl.store(out + 6 * B + at, libdevice.lgamma(v))
    tl.store(out + 7 * B + at, libdevice.erfcx(v))
    tl.store(out + 8 * B + at, libdevice.exp(v))
    tl.store(out + 9 * B + at, libdevice.exp2(v))
    tl.store(out + 10 * B + at, libdevice.y0(v))
    tl.store(out + 11 * B + at, libdevice.y1(v))


@triton.jit
def any_sign(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    tl.store(out + 0 * B + at, libdevice.j0(v))
    tl.store(out + 1 * B + at, libdevice.j1(v))
    tl.store(out + 2 * B + at, libdevice.cyl_bessel_i0(v))
    tl.store(out + 3 * B + at, libdevice.cyl_bessel_i1(v))
    tl.store(out + 4 * B + at, libdevice.asinh(v))
    tl.store(out + 5 * B + at, libdevice.floor(v))
    tl.store(out + 6 * B + at, libdevice.ceil(v))
    tl.store(out + 7 * B + at, libdevice.trunc(v))
    tl.store(out + 8 * B + at, libdevice.nearbyint(v))
    tl.store(out + 9 * B + at, libdevice.round(v))


@triton.jit
def two_numbers(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    w = tl.load(y + at)
    tl.store(out + 0 * B + at, libdevice.atan2(v, w))
    tl.store(out + 1 * B + at, libdevice.copysign(v, w))
    tl.store(out + 2 * B + at, libdevice.fmod(v, w))
    tl.store(out + 3 * B + at, libdevice.hypot(v, w))
    tl.store(out + 4 * B + at, libdevice.pow(tl.abs(v), w))
    tl.store(out + 5 * B + at, libdevice.nextafter(v, w))


@triton.jit
def trig_large(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    tl.store(out + at, tl.sin(a))
    tl.store(out + B + at, tl.cos(a))
    tl.store(out + 2 * B + at, libdevice.tan(a))


@triton.jit
def int64_all(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    tl.store(out + at, a * b)
    tl.store(out + B + at, a // b)
    tl.store(out + 2 * B + at, a % b)
    tl.store(out + 3 * B + at, (a << (b & 63)) ^ (a >> (b & 31)))
    tl.store(out + 4 * B + at, tl.where(a > b, a - b, a + b))
    tl.store(out + 5 * B + at, tl.minimum(a, b) + tl.maximum(a, -b))
    tl.store(out + 6 * B + at, tl.umulhi(a.to(tl.uint64), b.to(tl.uint64)).to(tl.int64))
    tl.store(out + 7 * B + at, (a.to(tl.uint64) // (tl.abs(b)).to(tl.uint64)).to(tl.int64))
    tl.store(out + 8 * B + at, a.to(tl.float32).to(tl.int64) + a.to(tl.float64).to(tl.int64))
    tl.store(out + 9 * B + at, tl.abs(a) + (a & b) - (a | b))


@triton.jit
def bf16_math(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    tl.store(out + at, a + b)
    tl.store(out + B + at, a * b)
    tl.store(out + 2 * B + at, (a.to(tl.float32) / b.to(tl.float32)).to(tl.bfloat16))
    tl.store(out + 3 * B + at, tl.exp(a.to(tl.float32)).to(tl.bfloat16))
    tl.store(out + 4 * B + at, tl.maximum(a, b) - tl.minimum(a, b))
    tl.store(out + 5 * B + at, tl.where(a < b, a, -b))


@triton.jit
def small_ints(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    tl.store(out + at, a // b)
    tl.store(out + B + at, a % b)
    tl.store(out + 2 * B + at, a * b + (a >> 1))
    tl.store(out + 3 * B + at, tl.where(a > b, a ^ b, a & b))
    tl.store(out + 4 * B + at, (a.to(tl.float32) * 0.5).to(tl.int32).to(a.dtype))


@triton.jit
def casts(x, o64, of16, obf, of64, oi8, ou8, oi16, ou32, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    tl.store(o64 + at, (a * 1e9).to(tl.int64))
    tl.store(of16 + at, a.to(tl.float16))
    tl.store(obf + at, a.to(tl.bfloat16))
    tl.store(of64 + at, a.to(tl.float64) * 1.1)
    tl.store(oi8 + at, (a * 10).to(tl.int8))
    tl.store(ou8 + at, tl.abs(a * 10).to(tl.uint8))
    tl.store(oi16 + at, (a * 1000).to(tl.int16))
    tl.store(ou32 + at, tl.abs(a * 1e8).to(tl.uint32))


@triton.jit
def fp8_to_wide(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(x + at).to(out.dtype.element_ty))


@triton.jit
def rounding(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    tl.store(out + at, tl.div_rn(a, b))
    tl.store(out + B + at, tl.sqrt_rn(tl.abs(a)))
    tl.store(out + 2 * B + at, tl.clamp(a, -0.5, 0.5))
    tl.store(out + 3 * B + at, tl.fma(a, b, a))
    tl.store(out + 4 * B + at, tl.sigmoid(a) + tl.erf(b))
    tl.store(out + 5 * B + at, tl.rsqrt(tl.abs(a)) + tl.floor(b) + tl.ceil(a))
    tl.store(out + 6 * B + at, tl.exp2(a) * tl.log2(tl.abs(b)))
    tl.store(out + 7 * B + at, tl.softmax(a))
    tl.store(out + 8 * B + at, tl.fdiv(a, b) + tl.abs(b))


@triton.jit
def scalars(out, a, b, c, d, e, flag, B: tl.constexpr):
    at = tl.arange(0, B)
    v = at.to(tl.float64) * a + b
    if flag:
        v = v + c
    v = v * e
    tl.store(out + at, v + d)


@triton.jit
def popc(x, out, B: tl.constexpr):
    at = tl.arange(0, B)
    v = tl.load(x + at)
    c = v - ((v >> 1) & 0x55555555)
    c = (c & 0x33333333) + ((c >> 2) & 0x33333333)
    c = (c + (c >> 4)) & 0x0F0F0F0F
    tl.store(out + at, (c * 0x01010101) >> 24)


@triton.jit
def u64ops(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    tl.store(out + at, a // b)
    tl.store(out + B + at, a % b)
    tl.store(out + 2 * B + at, (a >> 7) ^ (b << 3))
    tl.store(out + 3 * B + at, tl.where(a < b, a, b) + tl.umulhi(a, b))
    tl.store(out + 4 * B + at, (a.to(tl.float64) * 0.5).to(tl.uint64))


@triton.jit
def nan_inf(x, y, out, B: tl.constexpr):
    at = tl.arange(0, B)
    a = tl.load(x + at)
    b = tl.load(y + at)
    tl.store(out + at, tl.maximum(a, b))
    tl.store(out + B + at, tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL))
    tl.store(out + 2 * B + at, a / b)
    tl.store(
        out + 3 * B + at,
        tl.where(libdevice.isnan(a), 1.0, 0.0) + tl.where(libdevice.isinf(b), 2.0, 0.0),
    )
    tl.store(out + 4 * B + at, tl.clamp(a, -1.0, 1.0))
    tl.store(out + 5 * B + at, tl.sqrt(a) + tl.exp(b))
    tl.store(out + 6 * B + at, a * b + a)
