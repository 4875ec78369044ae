"""Narrow and packed arithmetic against NumPy: LLVM IR on i8, i16, half and their vectors, compiled
by llc for gfx942 into packed, SDWA and 16-bit instructions. Needs llc (make setup-asm)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from isobath.emulator import run_program
from isobath.emulator.code import parse_text
from tests.support import llvm_programs as llvm

THREADS = 256
INTEGERS = {"i8": np.uint8, "i16": np.uint16, "i32": np.uint32, "i64": np.uint64}
Binary = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Operation:
    """text: IR that makes %r of %x, %y, %z; intrinsic: its name, "" for none; want: by NumPy."""

    text: str
    want: Binary
    intrinsic: str = ""
    arguments: int = 2


def signed(a: np.ndarray) -> np.ndarray:
    return a.view(a.dtype.name.removeprefix("u"))


def saturated(a: np.ndarray, b: np.ndarray, sign: int) -> np.ndarray:
    """Signed sums in Python's integers, cut to the type."""
    limits = np.iinfo(signed(a).dtype)
    pairs = zip(signed(a), signed(b), strict=True)
    cut = [max(limits.min, min(limits.max, int(p) + sign * int(q))) for p, q in pairs]
    return np.array(cut, signed(a).dtype).view(a.dtype)


def bits(a: np.ndarray) -> int:
    return 8 * a.dtype.itemsize


def shifted(a: np.ndarray, b: np.ndarray, how: str) -> np.ndarray:
    by = b & a.dtype.type(bits(a) - 1)
    if how == "ashr":
        return (signed(a) >> by.astype(signed(a).dtype)).view(a.dtype)
    return a << by if how == "shl" else a >> by


WHOLE = {
    "add": Operation("%r = add {T} %x, %y", lambda a, b, c: a + b),
    "sub": Operation("%r = sub {T} %x, %y", lambda a, b, c: a - b),
    "mul": Operation("%r = mul {T} %x, %y", lambda a, b, c: a * b),
    "mad": Operation("%p = mul {T} %x, %y\n%r = add {T} %p, %z", lambda a, b, c: a * b + c),
    **{
        how: Operation(
            f"%s = and {{T}} %y, {{mask}}\n%r = {how} {{T}} %x, %s",
            lambda a, b, c, how=how: shifted(a, b, how),
        )
        for how in ("shl", "lshr", "ashr")
    },
    "smin": Operation(
        "%r = {call}({T} %x, {T} %y)",
        lambda a, b, c: np.minimum(signed(a), signed(b)).view(a.dtype), "smin",
    ),
    "umax": Operation("%r = {call}({T} %x, {T} %y)", lambda a, b, c: np.maximum(a, b), "umax"),
    "uadd.sat": Operation(
        "%r = {call}({T} %x, {T} %y)",
        lambda a, b, c: np.where(a + b < a, ~a.dtype.type(0), a + b), "uadd.sat",
    ),
    "usub.sat": Operation(
        "%r = {call}({T} %x, {T} %y)",
        lambda a, b, c: np.where(b > a, a.dtype.type(0), a - b), "usub.sat",
    ),
    "sadd.sat": Operation(
        "%r = {call}({T} %x, {T} %y)", lambda a, b, c: saturated(a, b, 1), "sadd.sat"
    ),
    "ssub.sat": Operation(
        "%r = {call}({T} %x, {T} %y)", lambda a, b, c: saturated(a, b, -1), "ssub.sat"
    ),
}  # fmt: skip


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c of float16, rounded once, by exact fractions."""
    return np.array([_fused(p, q, s) for p, q, s in zip(a, b, c, strict=True)], np.float16)


def _fused(p: np.float16, q: np.float16, s: np.float16) -> np.float16:
    near = np.float16(np.float64(p) * np.float64(q) + np.float64(s))
    if not (np.isfinite(p) and np.isfinite(q) and np.isfinite(s) and np.isfinite(near)):
        return near
    exact = Fraction(float(p)) * Fraction(float(q)) + Fraction(float(s))
    around = [v for v in (np.nextafter(near, np.float16(x)) for x in (-np.inf, np.inf))]
    others = [v for v in around if np.isfinite(v)]
    key = lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.uint16)) & 1)  # noqa: E731
    return near if exact == 0 else min([near, *others], key=key)


HALF = {
    "fadd": Operation("%r = fadd {T} %x, %y", lambda a, b, c: a + b),
    "fmul": Operation("%r = fmul {T} %x, %y", lambda a, b, c: a * b),
    "fma": Operation(
        "%n = fneg {T} %y\n%r = {call}({T} %x, {T} %n, {T} %z)",
        lambda a, b, c: fused(a, -b, c), "fma", 3,
    ),
    "minnum": Operation("%r = {call}({T} %x, {T} %y)", lambda a, b, c: np.fmin(a, b), "minnum"),
    "maxnum": Operation("%r = {call}({T} %x, {T} %y)", lambda a, b, c: np.fmax(a, b), "maxnum"),
    "floor": Operation("%r = {call}({T} %x)", lambda a, b, c: np.floor(a), "floor", 1),
    "rint": Operation("%r = {call}({T} %x)", lambda a, b, c: np.rint(a), "rint", 1),
}  # fmt: skip


def arrays(kind: Any, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    if kind is np.float16:
        found = [
            rng.standard_normal(count) * np.exp2(rng.integers(-18, 15, count)) for _ in range(3)
        ]
        found = [a.astype(kind) for a in found]
        for a in found:
            a[::17], a[5::41], a[7::53], a[3::19] = 0, np.inf, np.nan, 6e-8
        return found
    found = [np.frombuffer(rng.bytes(count * np.dtype(kind).itemsize), kind) for _ in range(3)]
    return [np.where(np.arange(count) % 7 == 0, a & kind(15), a) for a in found]


def emulated(operation: Operation, element: str, lanes: int, given: list[np.ndarray]) -> Any:
    """(%r of every thread, opcodes executed)."""
    kind = element if lanes == 1 else f"<{lanes} x {element}>"
    name = element if element.startswith("i") else "f16"
    name = name if lanes == 1 else f"v{lanes}{name}"
    call, pointer = f"@llvm.{operation.intrinsic}.{name}", "ptr addrspace(1)"
    mask = bits(given[0]) - 1
    wide = str(mask) if lanes == 1 else f"<{', '.join([f'{element} {mask}'] * lanes)}>"
    text = operation.text.format(T=kind, call=f"call {kind} {call}", mask=wide)
    lines = ['target triple = "amdgcn-amd-amdhsa"', "declare i32 @llvm.amdgcn.workitem.id.x()"]
    if operation.intrinsic:
        lines.append(f"declare {kind} {call}({', '.join([kind] * operation.arguments)})")
    lines.append(
        f"define amdgpu_kernel void @k({', '.join(f'{pointer} %{n}' for n in 'abco')}) #0 {{"
    )
    lines.append("%t0 = call i32 @llvm.amdgcn.workitem.id.x()\n%t = and i32 %t0, 255")
    for array, value in zip("abc", "xyz", strict=True):
        lines.append(f"%p{array} = getelementptr {kind}, {pointer} %{array}, i32 %t")
        lines.append(f"%{value} = load {kind}, {pointer} %p{array}")
    lines += [text, f"%po = getelementptr {kind}, {pointer} %o, i32 %t"]
    lines += [f"store {kind} %r, {pointer} %po", "ret void", "}"]
    lines.append('attributes #0 = { "amdgpu-flat-work-group-size"="256,256" }')
    llc = llvm.tool(llvm.LLC)
    assert llc, "make setup-asm installs LLVM 19"
    command = [llc, "-O2", "-mcpu=gfx942", "-o", "-"]
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, check=True
    )
    out = np.zeros_like(given[0])
    named = [*zip("abc", given, strict=True), ("o", out)]
    run = run_program(parse_text(done.stdout), (1, 1, 1), named, num_warps=4, lds_bytes=0)
    return out, set(run.outcome.mix)


@pytest.mark.parametrize(
    ("element", "lanes"),
    [
        ("half", 1),
        ("half", 2),
        ("i16", 2),
        ("i8", 4),
        ("i16", 1),
        ("i8", 1),
        ("i32", 2),
        ("i64", 1),
    ],
)
def test_narrow_arithmetic_is_numpys(element: str, lanes: int) -> None:
    kind = INTEGERS.get(element, np.float16)
    given, opcodes = arrays(kind, THREADS * lanes), set[str]()
    for name, operation in (WHOLE if element in INTEGERS else HALF).items():
        got, used = emulated(operation, element, lanes, given)
        opcodes |= used
        with np.errstate(all="ignore"):
            want = np.asarray(operation.want(*given)).astype(kind)
        same = (got == want) | ((got != got) & (want != want))
        assert same.all(), (name, [a[~same][:3] for a in (*given, got, want)])
    if lanes == 2 and element in ("half", "i16"):
        assert len([opcode for opcode in opcodes if opcode.startswith("v_pk_")]) >= 4, opcodes
