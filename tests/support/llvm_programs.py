"""Random straight-line LLVM IR, the same for x86 and for gfx942, built and run on both.

Each program reads four int32 and four float32 a thread, applies random operations on int32, int64,
float32 and conditions, and stores three int32, three float32 and two int64. clang makes a shared
library of it for this machine, llc assembly for gfx942. Only operations whose meaning LLVM defines
for every input are drawn (shifts are masked, conversions saturate).
"""

from __future__ import annotations

import ctypes
import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

THREADS, INPUTS, SLOTS = 256, 4, 16
LLC = ("llc-22", "llc-19", "llc")
CLANG = ("clang-22", "clang-19", "clang")

_UNARY_FLOAT = ("floor", "ceil", "trunc", "rint", "fabs", "sqrt", "canonicalize")
_BINARY_INT = ("smin", "smax", "umin", "umax", "uadd.sat", "usub.sat")
_ORDERS = "eq ne ult ule ugt uge slt sle sgt sge"
_FLOAT_ORDERS = "oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno"
_UNARY_INT = ("bitreverse", "ctpop", "bswap")
DECLARATIONS = "\n".join(
    [f"declare float @llvm.{n}.f32(float)" for n in _UNARY_FLOAT]
    + ["declare float @llvm.fma.f32(float, float, float)"]
    + [f"declare i32 @llvm.{n}.i32(i32, i32)" for n in _BINARY_INT]
    + [f"declare i32 @llvm.{n}.i32(i32)" for n in _UNARY_INT]
    + [f"declare i32 @llvm.{n}.i32(i32, i1)" for n in ("ctlz", "cttz", "abs")]
    + [f"declare i32 @llvm.{n}.i32(i32, i32, i32)" for n in ("fshl", "fshr")]
    + [f"declare i32 @llvm.{n}.sat.i32.f32(float)" for n in ("fptosi", "fptoui")]
)


def tool(names: tuple[str, ...]) -> str | None:
    """Path of the first of the programs that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


class Program:
    """Random operations over pools of named values."""

    def __init__(self, seed: int, length: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.ints = [f"%i{k}" for k in range(4)]
        self.floats = [f"%f{k}" for k in range(4)]
        self.longs, self.bits = ["%q0", "%q1"], ["%b0"]
        self.count = 0
        kinds = [self.integer, self.integer, self.shift, self.real, self.real, self.compare,
                 self.choose, self.long, self.convert, self.intrinsic, self.narrow]  # fmt: skip
        for _ in range(length):
            self.random.choice(kinds)()

    def name(self) -> str:
        self.count += 1
        return f"%t{self.count}"

    def add(self, pool: list[str], text: str) -> None:
        target = self.name()
        self.lines.append(f"{target} = {text}")
        pool.append(target)

    def pick(self, pool: list[str]) -> str:
        return self.random.choice(pool)

    def int_or_constant(self) -> str:
        constants = [0, 1, -1, 31, 64, 255, 65535, self.random.getrandbits(31)]
        return self.random.choice([*self.ints, str(self.random.choice(constants))])

    def integer(self) -> None:
        kind = self.random.choice(["add", "sub", "mul", "and", "or", "xor"])
        self.add(self.ints, f"{kind} i32 {self.int_or_constant()}, {self.pick(self.ints)}")

    def shift(self) -> None:
        kind = self.random.choice(["shl", "lshr", "ashr"])
        amount, wide = self.name(), self.random.random() < 0.3
        if wide:
            self.lines.append(f"{amount} = and i64 {self.pick(self.longs)}, 63")
            self.add(self.longs, f"{kind} i64 {self.pick(self.longs)}, {amount}")
        else:
            self.lines.append(f"{amount} = and i32 {self.pick(self.ints)}, 31")
            self.add(self.ints, f"{kind} i32 {self.pick(self.ints)}, {amount}")

    def real(self) -> None:
        a, b, c = (self.pick(self.floats) for _ in range(3))
        texts = [f"{kind} float {a}, {b}" for kind in ("fadd", "fsub", "fmul", "fdiv")]
        texts.append(f"call float @llvm.fma.f32(float {a}, float {b}, float {c})")
        texts += [f"call float @llvm.{n}.f32(float {a})" for n in _UNARY_FLOAT]
        texts.append(f"fneg float {a}")
        self.add(self.floats, self.random.choice(texts))

    def compare(self) -> None:
        if self.random.random() < 0.4:
            how = _FLOAT_ORDERS.split()
            a, b = self.pick(self.floats), self.pick(self.floats)
            self.add(self.bits, f"fcmp {self.random.choice(how)} float {a}, {b}")
            return
        how = _ORDERS.split()
        if self.random.random() < 0.3:
            a, b = self.pick(self.longs), self.pick(self.longs)
            self.add(self.bits, f"icmp {self.random.choice(how)} i64 {a}, {b}")
        else:
            a, b = self.pick(self.ints), self.int_or_constant()
            self.add(self.bits, f"icmp {self.random.choice(how)} i32 {a}, {b}")

    def choose(self) -> None:
        pool, kind = self.random.choice(
            [(self.ints, "i32"), (self.floats, "float"), (self.longs, "i64")]
        )
        a, b = self.pick(pool), self.pick(pool)
        self.add(pool, f"select i1 {self.pick(self.bits)}, {kind} {a}, {kind} {b}")

    def long(self) -> None:
        kind = self.random.choice(["add", "sub", "mul", "and", "or", "xor"])
        self.add(self.longs, f"{kind} i64 {self.pick(self.longs)}, {self.pick(self.longs)}")

    def convert(self) -> None:
        i, f, q = self.pick(self.ints), self.pick(self.floats), self.pick(self.longs)
        kind = self.random.choice(["zext", "sext", "trunc", "uitofp", "sitofp", "fptosi", "fptoui"])
        if kind in ("zext", "sext"):
            self.add(self.longs, f"{kind} i32 {i} to i64")
        elif kind == "trunc":
            self.add(self.ints, f"trunc i64 {q} to i32")
        elif kind.startswith("fpto"):
            self.add(self.ints, f"call i32 @llvm.{kind}.sat.i32.f32(float {f})")
        else:
            self.add(self.floats, f"{kind} i32 {i} to float")

    def intrinsic(self) -> None:
        a, b, c = (self.pick(self.ints) for _ in range(3))
        texts = [f"call i32 @llvm.{n}.i32(i32 {a}, i32 {b})" for n in _BINARY_INT]
        texts += [f"call i32 @llvm.{n}.i32(i32 {a})" for n in _UNARY_INT]
        texts += [f"call i32 @llvm.{n}.i32(i32 {a}, i1 false)" for n in ("ctlz", "cttz", "abs")]
        texts += [f"call i32 @llvm.{n}.i32(i32 {a}, i32 {b}, i32 {c})" for n in ("fshl", "fshr")]
        self.add(self.ints, self.random.choice(texts))

    def narrow(self) -> None:
        small, target = self.random.choice(["i8", "i16"]), self.name()
        self.lines.append(f"{target} = trunc i32 {self.pick(self.ints)} to {small}")
        self.add(self.ints, f"{self.random.choice(['zext', 'sext'])} {small} {target} to i32")

    def body(self, pointer: str) -> str:
        """IR between entry and return; pointer: "ptr" or "ptr addrspace(1)"."""
        lines = ["%base = mul i32 %tid, 4"]
        for k in range(INPUTS):
            lines += [
                f"%x{k} = add i32 %base, {k}",
                f"%pi{k} = getelementptr i32, {pointer} %in, i32 %x{k}",
                f"%i{k} = load i32, {pointer} %pi{k}",
                f"%pf{k} = getelementptr float, {pointer} %fin, i32 %x{k}",
                f"%f{k} = load float, {pointer} %pf{k}",
            ]
        lines += [
            "%qa = zext i32 %i0 to i64", "%qb = sext i32 %i1 to i64", "%qs = shl i64 %qa, 31",
            "%q0 = xor i64 %qs, %qb", "%q1 = mul i64 %q0, 2654435761",
            "%b0 = icmp slt i32 %i2, %i3", *self.lines, f"%out0 = mul i32 %tid, {SLOTS}",
        ]  # fmt: skip
        outputs = [("i32", v) for v in self.ints[-3:]] + [("float", v) for v in self.floats[-3:]]
        outputs += [("i64", v) for v in self.longs[-2:]]
        for k, (kind, value) in enumerate(outputs):
            slot = k if k < 6 else 6 + 2 * (k - 6)
            lines += [
                f"%s{k} = add i32 %out0, {slot}",
                f"%o{k} = getelementptr i32, {pointer} %out, i32 %s{k}",
                f"store {kind} {value}, {pointer} %o{k}",
            ]
        return "\n".join(lines)


def inputs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32, float32) of every thread; small integers, zero, infinity, NaN, a denormal too."""
    rng = np.random.default_rng(seed)
    ints = rng.integers(0, 2**32, THREADS * INPUTS, dtype=np.uint64).astype(np.uint32)
    ints[::7] = rng.integers(0, 64, len(ints[::7]))
    spread = np.exp2(rng.integers(-30, 30, THREADS * INPUTS))
    floats = (rng.standard_normal(THREADS * INPUTS) * spread).astype(np.float32)
    floats[[5, 77, 99, 130]] = np.inf, np.nan, 0.0, 1e-40
    return ints, floats


def gfx942_assembly(program: Program, llc: str) -> str:
    """Assembly text of a kernel k(in, fin, out) of 256 threads."""
    pointer = "ptr addrspace(1)"
    text = (
        'target triple = "amdgcn-amd-amdhsa"\n'
        f"{DECLARATIONS}\ndeclare i32 @llvm.amdgcn.workitem.id.x()\n"
        f"define amdgpu_kernel void @k({pointer} %in, {pointer} %fin, {pointer} %out) #0 {{\n"
        "%tid0 = call i32 @llvm.amdgcn.workitem.id.x()\n%tid = and i32 %tid0, 255\n"
        f"{program.body(pointer)}\nret void\n}}\n"
        'attributes #0 = { "amdgpu-flat-work-group-size"="256,256" }\n'
    )
    command = [llc, "-O2", "-mcpu=gfx942", "-o", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def run_on_this_machine(
    program: Program, clang: str, folder: Path, ints: np.ndarray, floats: np.ndarray
) -> np.ndarray:
    """What the program stores, uint32 [THREADS * SLOTS]."""
    name = f"k{abs(hash(tuple(program.lines)))}"  # a library of one name is loaded only once
    source, library = folder / f"{name}.ll", folder / f"{name}.so"
    # LLVM 19 has no canonicalize for x86; but for the kind of a NaN it is the number itself.
    body = re.sub(r"call float @llvm\.canonicalize\.f32\(float (\S+)\)", r"fadd float \1, -0.0",
                  program.body("ptr"))  # fmt: skip
    source.write_text(
        f"{DECLARATIONS}\ndefine void @k(ptr %in, ptr %fin, ptr %out, i32 %tid) {{\n"
        f"{body}\nret void\n}}\n"
    )
    command = [clang, "-O1", "-march=haswell", "-ffp-contract=off", "-shared", "-fPIC"]
    command += ["-Wno-override-module", "-o", str(library), str(source), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    function = ctypes.CDLL(str(library)).k
    out = np.zeros(THREADS * SLOTS, np.uint32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (ints, floats, out)]
    for thread in range(THREADS):
        function(*pointers, ctypes.c_int(thread))
    return out
