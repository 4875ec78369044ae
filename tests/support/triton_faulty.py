"""Kernels with one mistake each, for the emulator to find."""

import triton
import triton.language as tl


@triton.jit
def rotate(x, out, n, B: tl.constexpr):
    """out[i] = x[(i + 1) % n] through LDS: correct; tests remove its barriers."""
    at = tl.arange(0, B)
    value = tl.load(x + at, mask=at < n)
    turned = tl.gather(value, (at + 1) % B, 0)
    tl.store(out + at, turned, mask=at < n)


@triton.jit
def column_sums_unpadded(x, out, rows, n, B: tl.constexpr):
    """Sums rows of width n with blocks of B > n; the mask of the columns is missing."""
    at = tl.arange(0, B)
    total = tl.zeros((B,), tl.float32)
    for row in range(rows):
        total += tl.load(x + row * n + at)
    tl.store(out + at, total, mask=at < n)


@triton.jit
def row_at_32_bits(x, out, row, stride, B: tl.constexpr):
    """Reads one row; row * stride is an int32 product, which wraps past 2**31."""
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(x + row * stride + at))


@triton.jit
def row_at_64_bits(x, out, row, stride, B: tl.constexpr):
    """The same with a 64-bit offset."""
    at = tl.arange(0, B)
    tl.store(out + at, tl.load(x + row.to(tl.int64) * stride + at))


@triton.jit
def insert_row(x, slots, cache, B: tl.constexpr):
    """cache[slots[program]] = x[program], without asking whether the slot exists."""
    program = tl.program_id(0)
    at = tl.arange(0, B)
    slot = tl.load(slots + program).to(tl.int64)
    tl.store(cache + slot * B + at, tl.load(x + program * B + at))


@triton.jit
def quantise_block(x, codes, scale, LIMIT: tl.constexpr, LIMIT_BITS: tl.constexpr, B: tl.constexpr):
    """One block of B float32 to FNUZ codes and a UE8M0 byte, the largest value brought to LIMIT,
    whose float32 bits are LIMIT_BITS."""
    at = tl.arange(0, B)
    value = tl.load(x + at)
    bits = tl.max(tl.abs(value), 0).to(tl.int32, bitcast=True)
    up = ((bits & 0x7FFFFF) > (LIMIT_BITS & 0x7FFFFF)).to(tl.int32)
    exponent = (bits >> 23) - (LIMIT_BITS >> 23) + up
    inverse = ((127 - exponent) << 23).to(tl.float32, bitcast=True)
    scaled = tl.clamp(value * inverse, -LIMIT, LIMIT)
    tl.store(codes + at, scaled.to(tl.float8e4b8))
    tl.store(scale, (exponent + 127).to(tl.uint8))
