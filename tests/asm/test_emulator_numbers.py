"""What numbers the emulator computes, against authorities that are not itself: ml_dtypes for FP8,
exact fractions for fused multiply-adds and matrix accumulation, IEEE division for its expansion."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import ml_dtypes
import numpy as np
import pytest

from isobath.emulator import bits, floats, fp8, reduction
from isobath.emulator.mfma import VARIANTS, multiply

CLAMP = fp8.OVERFLOW_CLAMPS
FORMATS = {
    "fp8": (ml_dtypes.float8_e4m3fnuz, fp8.FP8_VALUES, fp8.to_fp8),
    "bf8": (ml_dtypes.float8_e5m2fnuz, fp8.BF8_VALUES, fp8.to_bf8),
}


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(((a == b) | (np.isnan(a) & np.isnan(b))).all())


@pytest.mark.parametrize("name", FORMATS)
def test_every_fnuz_code_decodes_as_in_ml_dtypes(name: str) -> None:
    kind, values, _ = FORMATS[name]
    assert same(values, np.arange(256, dtype=np.uint8).view(kind).astype(np.float32))


def fp8_inputs() -> np.ndarray:
    """Every float16 value, neighbours of every tie, and random float32 over the whole range."""
    every_half = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    random = rng().integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)
    ties = np.concatenate([f[1] for f in FORMATS.values()])
    ties = ties[np.isfinite(ties)]
    middles = ((ties[1:] + ties[:-1]) / 2).astype(np.float32)
    beside = [np.nextafter(middles, np.float32(s * np.inf)) for s in (-1, 1)]
    return np.concatenate([every_half, random, middles, *beside])


@pytest.mark.parametrize("name", FORMATS)
def test_fnuz_rounding_agrees_with_ml_dtypes(name: str) -> None:
    kind, values, encode = FORMATS[name]
    x = fp8_inputs()
    with np.errstate(all="ignore"):
        want = x.astype(kind).view(np.uint8)
    assert np.array_equal(encode(x, 0).astype(np.uint8), want)
    # With FP16_OVFL a finite value or an infinity that overflows clamps instead of becoming NaN.
    clamped = encode(x, CLAMP).astype(np.uint8)
    overflow = (want == fp8.NAN) & ~np.isnan(x)
    assert np.array_equal(clamped[~overflow], want[~overflow])
    assert same(values[clamped[overflow]], np.sign(x[overflow]) * np.nanmax(values))


def test_fma_rounds_once() -> None:
    n = 3000
    a, b, c = (rng().integers(0, 1 << 32, (3, n), dtype=np.uint32)).view(np.float32)
    exponents = rng().integers(-40, 40, n)
    c = np.where(np.arange(n) % 2, c, (a * b * np.exp2(exponents)).astype(np.float32))
    with np.errstate(all="ignore"):
        got = floats.fma(a, b, c)
    for k in range(n):
        parts = float(a[k]), float(b[k]), float(c[k])
        if not np.isfinite(parts).all() or not np.isfinite(got[k]):
            continue
        exact = Fraction(parts[0]) * Fraction(parts[1]) + Fraction(parts[2])
        assert nearest(exact, 24, -149) == Fraction(float(got[k])), parts


def test_double_fma_rounds_once() -> None:
    a, b, c = rng().standard_normal((3, 2000)) * np.exp2(rng().integers(-60, 60, (3, 2000)))
    c[::3] = -(a * b)[::3]
    got = floats.fma_f64(a, b, c)
    for k in range(len(a)):
        exact = Fraction(a[k]) * Fraction(b[k]) + Fraction(c[k])
        assert nearest(exact, 53, -1074) == Fraction(got[k])


def nearest(x: Fraction, precision: int, smallest: int) -> Fraction:
    """x rounded to nearest even with `precision` bits, multiples of 2**smallest at least."""
    if x == 0:
        return x
    exponent = max(exponent_of(x) - precision + 1, smallest)
    unit = Fraction(2) ** exponent
    low = floor(x / unit)
    rest = x / unit - low
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2)
    return (low + up) * unit


def exponent_of(x: Fraction) -> int:
    """The e with 2**e <= |x| < 2**(e + 1)."""
    e = abs(x).numerator.bit_length() - abs(x).denominator.bit_length()
    return e if abs(x) >= Fraction(2) ** e else e - 1


def test_division_expansion_is_ieee_division() -> None:
    """The sequence that LLVM emits for x / y: div_scale, Newton steps, div_fmas, div_fixup."""
    x, y = rng().integers(0, 1 << 32, (2, 50_000), dtype=np.uint32).view(np.float32)
    one = np.ones_like(x)
    with np.errstate(all="ignore"):
        d, _ = floats.divide_scale(y, y, x)
        n, flag = floats.divide_scale(x, y, x)
        r = (1.0 / d.astype(np.float64)).astype(np.float32)
        r = floats.fma(floats.fma(-d, r, one), r, r)
        q = n * r
        q = floats.fma(floats.fma(-d, q, n), r, q)
        q = floats.divide_fma(floats.fma(-d, q, n), r, q, flag)
        assert same(floats.divide_fixup(q, y, x), x / y)


def model(a: list[Fraction], b: list[Fraction], c: Fraction, kind: str) -> Fraction:
    """One element of a CDNA3 matrix product, written from the published description with exact
    fractions: it shares no code and no arithmetic with accumulate.py. Finite values only."""
    is_fp8, smallest = kind in ("fp8", "bf8"), {"bf16": -126, "f16": -14, "fp8": -7, "bf8": -15}
    group = 16 if is_fp8 else 8

    def exponent(x: Fraction, least: int) -> int:
        return max(exponent_of(x), least) if x else -126

    def cut(x: Fraction, at: int, toward_zero: bool) -> Fraction:
        unit = Fraction(2) ** at
        whole = int(x / unit) if toward_zero else floor(x / unit)
        return whole * unit

    for k in range(0, len(a), group):
        terms = [
            (x * y, exponent(x, smallest[kind]) + exponent(y, smallest[kind]))
            for x, y in zip(a[k : k + group], b[k : k + group], strict=True)
        ]
        sums = []
        for part in (terms[0::2], terms[1::2]) if is_fp8 else (terms,):
            top = max(e for _, e in part)
            sums.append((sum(cut(p, top - 24, True) for p, _ in part), top))
        top = max(e for _, e in sums)
        total = sums[0][0] if len(sums) == 1 else sum(cut(s, top - 24, False) for s, _ in sums)
        own = exponent(c, -126)
        joint = max(top, own)
        kept = Fraction(0) if is_fp8 and own < joint - 25 else cut(c, joint - 24, False)
        c = nearest(cut(total, joint - 31, False) + kept, 24, -149)
    return c


def spread(kind: str, shape: tuple[int, ...], style: str) -> np.ndarray:
    """Registers [2, 1, 64] of random values: "plain", "wide" exponents or "tiny" subnormals."""
    if kind in ("fp8", "bf8"):
        codes = rng().integers(0, 256, (1, 64, 8), dtype=np.uint8)
        codes[codes == fp8.NAN] = 1
        if style == "tiny":
            codes = (codes & 0x83) | 1
        return codes.view(np.uint32).transpose(2, 0, 1)
    exponents = {"plain": (-2, 3), "wide": (-12, 12), "tiny": (-24, -12)}[style]
    values = rng().standard_normal((1, 64, 4)) * np.exp2(rng().integers(*exponents, (1, 64, 4)))
    if kind == "f16":
        words = values.astype(np.float16).view(np.uint16)
    else:
        words = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(words).view(np.uint32).transpose(2, 0, 1)


MODELLED = [n for n, v in VARIANTS.items() if v.a in ("fp8", "bf8", "bf16", "f16") and v.K >= 8]


@pytest.mark.parametrize("style", ["plain", "wide", "tiny"])
@pytest.mark.parametrize("name", [n for n in MODELLED if not n.endswith("_1k")])
def test_exact_matrix_products_follow_the_published_model(name: str, style: str) -> None:
    from isobath.emulator.mfma import as_matrices, elements, matrices_to_result, result_to_matrices

    v = VARIANTS[name]
    a, b = spread(v.a, (), style), spread(v.b, (), style)[:, :, ::-1]
    rows = v.M * v.M // 64
    scale = np.exp2(rng().integers(-20, 8, (rows, 1, 64)))
    c = (rng().standard_normal((rows, 1, 64)) * scale).astype(np.float32)
    got = result_to_matrices(
        multiply(name, a, b, c.view(np.uint32), exact=True).view(np.float32), v
    )
    left, right = (as_matrices(elements(x, t), v)[0, 0] for x, t in ((a, v.a), (b, v.b)))
    start = result_to_matrices(c, v)[0, 0]
    assert np.array_equal(matrices_to_result(result_to_matrices(c, v), v), c)
    if v.a != v.b:  # the model takes one format; mixed ones differ only in the smallest exponent
        return
    for i, j in zip(rng().integers(0, v.M, 40), rng().integers(0, v.M, 40), strict=True):
        want = model(
            [Fraction(float(x)) for x in left[i]],
            [Fraction(float(x)) for x in right[j]],
            Fraction(float(start[i, j])),
            v.a,
        )
        assert Fraction(float(got[0, 0, i, j])) == want, (i, j)


def bits_of(values: np.ndarray, kind: str) -> np.ndarray:
    """Bytes of small integers in an operand type, [..., item size]."""
    types = {
        "f32": np.float32,
        "xf32": np.float32,
        "f64": np.float64,
        "f16": np.float16,
        "bf16": ml_dtypes.bfloat16,
        "i8": np.int8,
        "fp8": ml_dtypes.float8_e4m3fnuz,
        "bf8": ml_dtypes.float8_e5m2fnuz,
    }
    return np.ascontiguousarray(values.astype(types[kind]))[..., None].view(np.uint8)


@pytest.mark.parametrize("name", VARIANTS)
def test_layouts_are_those_of_the_documentation(name: str) -> None:
    """Each operand element placed, and each result element fetched, lane by lane from the formulas
    in mfma.py's docstring; small integers, so that every product and sum is exact."""
    v = VARIANTS[name]
    a, b = rng().integers(-2, 3, (2, v.blocks, v.M, v.K))
    registers = []
    for matrix, kind in ((a, v.a), (b, v.b)):
        per_lane = v.K * v.M * v.blocks // 64
        lanes = np.zeros((64, per_lane), np.int64)
        for lane in range(64):
            for j in range(per_lane):
                group = lane // v.M
                block, k = (group, j) if v.blocks > 1 else (0, group * per_lane + j)
                lanes[lane, j] = matrix[block, lane % v.M, k]
        octets = bits_of(lanes, kind).reshape(64, -1)
        registers.append(octets.view(np.uint32).T[:, None, :])
    wide = v.result == "f64"
    count = v.M * v.M * v.blocks // 64 * (2 if wide else 1)
    for exact in (False, True) if v.a != "xf32" else (False,):
        zero = np.zeros((count, 1, 64), np.uint32)
        out = multiply(name, *registers, zero, exact=exact)[:, 0]
        kind = {"f32": np.float32, "i32": np.int32, "f64": np.float64}[v.result]
        words = np.ascontiguousarray(out.T).view(kind)
        rows_a_block = words.shape[1] // v.blocks
        for block in range(v.blocks):
            want = a[block] @ b[block].T
            for lane in range(64):
                for r in range(rows_a_block if v.M > 4 else 4):
                    group = lane // v.M
                    if v.M == 4:
                        if group != block:
                            continue
                        row, register = r, r
                    else:
                        row = r % 4 + 4 * group + 4 * (64 // v.M) * (r // 4)
                        row = 4 * r + group if wide else row
                        register = block * rows_a_block + r
                    assert words[lane, register] == want[row, lane % v.M], (block, lane, r)


def test_counting_functions() -> None:
    x = rng().integers(0, 1 << 32, 500, dtype=np.uint64).astype(np.uint32)
    x[:3] = 0, 1, 0xFFFFFFFF
    assert [int(n) for n in bits.popcount(x)] == [int(n).bit_count() for n in x]
    leading = [32 - int(n).bit_length() if n else 0xFFFFFFFF for n in x]
    assert [int(n) for n in bits.leading_zeros(x)] == leading
    reverse = [int(f"{int(n):032b}"[::-1], 2) for n in x]
    assert [int(n) for n in bits.reverse_bits(x)] == reverse


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_the_smaller_of_two_zeros_is_the_negative_one(kind: type) -> None:
    """Or the copies of a sort that several waves make would differ in their zeros."""
    values = np.array([0, -0.0, 1, -1, np.nan], kind)
    x, y = (part.ravel() for part in np.meshgrid(values, values))
    largest, smallest = floats.larger(x, y), floats.smaller(x, y)
    for f in (largest, smallest):
        assert f.dtype == kind
    for a, b, high, low in zip(x, y, largest, smallest, strict=True):
        numbers = [v for v in (a, b) if not np.isnan(v)] or [a]
        ordered = sorted(numbers, key=lambda v: (float(v), not np.signbit(v)))
        for got, want in ((high, ordered[-1]), (low, ordered[0])):
            assert np.isnan(got) if np.isnan(want) else got == want
            assert np.isnan(got) or np.signbit(got) == np.signbit(want), (a, b, got)


def test_segments_of_two_over_pi_join_to_its_digits() -> None:
    """2 / pi = 0.63661977236758134307553505349005744813783858296182579499... (known digits)."""
    digits = Fraction(63661977236758134307553505349005744813783858296182579499, 10**56)
    one = np.ones((1, 1))
    parts = [reduction.two_over_pi(one, np.full((1, 1), k, np.uint32))[0, 0] for k in range(3)]
    assert abs(sum(map(Fraction, parts)) - digits) < Fraction(1, 2**158)
    # An exponent of 1077 + 16 skips 16 binary digits.
    shifted = reduction.two_over_pi(
        np.full((1, 1), 2.0 ** (1093 - 1023)), np.zeros((1, 1), np.uint32)
    )
    assert shifted[0, 0] == (Fraction(2) ** 16 * digits % 1) // Fraction(1, 2**53) / 2.0**69
