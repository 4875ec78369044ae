"""AMD's intrinsics with constants, folded by LLVM's opt, and the same with variables, compiled by
llc for gfx942: two answers to one question, neither of them ours.

Each Intrinsic is called on 256 tuples of numbers, special ones among them. Floats travel as bits.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

import numpy as np

CASES = 256
TRIPLE = 'target triple = "amdgcn-amd-amdhsa"'
OPT = ("opt-22", "opt-19", "opt")
BITS = {"i16": 16, "i32": 32, "i64": 64, "half": 16, "float": 32, "double": 64}
_INTEGERS = {16: "i16", 32: "i32", 64: "i64"}
_SPECIAL = {
    "half": (0x0000, 0x8000, 0x3C00, 0x7C00, 0xFC00, 0x7E00, 0x0001, 0x83FF, 0x7BFF),
    "float": (
        0,
        1 << 31,
        0x3F800000,
        0x7F800000,
        0xFF800000,
        0x7FC00000,
        1,
        0x807FFFFF,
        0x7F7FFFFF,
    ),
    "double": (0, 1 << 63, 0x3FF << 52, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 1, 0x7FEF << 48),
}


@dataclass(frozen=True)
class Intrinsic:
    """name: after "llvm."; result and arguments: types, "class" for a set of float classes,
    "power" for a small exponent; tail: constant further arguments."""

    name: str
    result: str
    arguments: tuple[str, ...]
    tail: str = ""

    @property
    def types(self) -> tuple[str, ...]:
        return tuple({"class": "i32", "power": "i32"}.get(a, a) for a in self.arguments)

    @property
    def declaration(self) -> str:
        types = ", ".join([*self.types, *re.findall(r"(i\d+) \w+", self.tail)])
        return f"declare {self.result} @llvm.{self.name}({types})"

    def call(self, values: list[str]) -> str:
        given = ", ".join(f"{t} {v}" for t, v in zip(self.types, values, strict=True))
        return f"call {self.result} @llvm.{self.name}({given}{self.tail})"


def _table() -> list[Intrinsic]:
    found = [
        Intrinsic("amdgcn.ubfe.i32", "i32", ("i32", "i32", "i32")),
        Intrinsic("amdgcn.sbfe.i32", "i32", ("i32", "i32", "i32")),
        Intrinsic("amdgcn.perm", "i32", ("i32", "i32", "i32")),
        Intrinsic("fshr.i32", "i32", ("i32", "i32", "i32")),
        Intrinsic("bitreverse.i32", "i32", ("i32",)),
        Intrinsic("bitreverse.i64", "i64", ("i64",)),
        Intrinsic("ctlz.i32", "i32", ("i32",), ", i1 false"),
        Intrinsic("ctlz.i64", "i64", ("i64",), ", i1 false"),
        Intrinsic("cttz.i32", "i32", ("i32",), ", i1 false"),
        Intrinsic("ctpop.i64", "i64", ("i64",)),
        Intrinsic("amdgcn.rcp.f32", "float", ("float",)),
        Intrinsic("amdgcn.fmul.legacy", "float", ("float", "float")),
    ]
    for name in ("uadd.sat", "usub.sat", "sadd.sat", "ssub.sat", "umin", "umax", "smin", "smax"):
        found += [Intrinsic(f"{name}.{t}", t, (t, t)) for t in ("i16", "i32")]
    for short, kind in (("f16", "half"), ("f32", "float"), ("f64", "double")):
        found += [
            Intrinsic(f"fma.{short}", kind, (kind, kind, kind)),
            Intrinsic(f"ldexp.{short}.i32", kind, (kind, "power")),
            Intrinsic(f"amdgcn.frexp.mant.{short}", kind, (kind,)),
            Intrinsic(f"amdgcn.class.{short}", "i1", (kind, "class")),
            Intrinsic(f"rint.{short}", kind, (kind,)),
            Intrinsic(f"trunc.{short}", kind, (kind,)),
            Intrinsic(f"floor.{short}", kind, (kind,)),
            Intrinsic(f"amdgcn.fract.{short}", kind, (kind,)),
        ]
    found += [
        Intrinsic(f"amdgcn.frexp.exp.i32.{short}", "i32", (kind,))
        for short, kind in (("f32", "float"), ("f64", "double"))
    ]
    found += [
        Intrinsic(f"amdgcn.fmed3.{s}", k, (k, k, k)) for s, k in (("f16", "half"), ("f32", "float"))
    ]
    return found


TABLE = _table()


def draw(intrinsic: Intrinsic, rng: np.random.Generator) -> list[list[int]]:
    """Bits of each argument in each case."""
    return [[_number(kind, rng) for _ in range(CASES)] for kind in intrinsic.arguments]


def _number(kind: str, rng: np.random.Generator) -> int:
    if kind == "class":
        return int(rng.integers(0, 1024))
    if kind == "power":
        return int(rng.integers(-40, 40)) & 0xFFFFFFFF
    special = _SPECIAL.get(kind)
    if special and rng.random() < 0.2:
        return int(special[rng.integers(len(special))])
    if special:
        kinds = {"half": np.float16, "float": np.float32, "double": np.float64}
        value = rng.standard_normal() * 2.0 ** rng.integers(-12, 12)
        words = {16: np.uint16, 32: np.uint32, 64: np.uint64}
        return int(np.array(value, kinds[kind]).view(words[BITS[kind]]))
    size = BITS[kind]
    whole = int(rng.integers(0, 2**size, dtype=np.uint64)) if size < 64 else 0
    whole = whole if size < 64 else int.from_bytes(rng.bytes(8), "little")
    return whole if rng.random() < 0.7 else whole % 64


def folded(intrinsic: Intrinsic, arguments: list[list[int]], opt: str) -> list[int | None]:
    """What opt makes of each case, as bits; None where it leaves the call."""
    integer, types = f"i{result_bits(intrinsic)}", intrinsic.types
    text = [TRIPLE, intrinsic.declaration]
    for k in range(CASES):
        text.append(f"define {integer} @c{k}() {{")
        values = []
        for place, (kind, bits) in enumerate(zip(types, (a[k] for a in arguments), strict=True)):
            raw = f"i{BITS[kind]}"
            if kind.startswith("i"):
                values.append(str(bits))
            else:
                text.append(f"%v{place} = bitcast {raw} {bits} to {kind}")
                values.append(f"%v{place}")
        text.append(f"%r = {intrinsic.call(values)}")
        text.append(_as_integer(intrinsic.result, "%r", "%q"))
        text.append(f"ret {integer} %q\n}}")
    command = [opt, "-S", "-passes=instcombine", "-mcpu=gfx942", "-o", "-"]
    done = subprocess.run(
        command, input="\n".join(text), capture_output=True, text=True, check=True
    )
    bodies = re.findall(r"define [^@]*@c\d+\(\)[^{]*\{(.*?)\n\}", done.stdout, re.DOTALL)
    found = [re.fullmatch(rf"\s*ret {integer} (-?\d+)\s*", body) for body in bodies]
    return [int(m[1]) % 2 ** result_bits(intrinsic) if m else None for m in found]


def result_bits(intrinsic: Intrinsic) -> int:
    return 32 if intrinsic.result == "i1" else BITS[intrinsic.result]


def _as_integer(kind: str, value: str, target: str) -> str:
    if kind == "i1":
        return f"{target} = zext i1 {value} to i32"
    if kind.startswith("i"):
        return f"{target} = add {kind} {value}, 0"
    return f"{target} = bitcast {kind} {value} to i{BITS[kind]}"


def kernel(intrinsic: Intrinsic, llc: str) -> str:
    """gfx942 assembly of k(arguments..., out): the same call on a thread's own numbers."""
    pointer, integer = "ptr addrspace(1)", f"i{result_bits(intrinsic)}"
    names = [f"a{k}" for k in range(len(intrinsic.types))]
    parameters = ", ".join(f"{pointer} %{name}" for name in [*names, "out"])
    lines = [
        TRIPLE, intrinsic.declaration, "declare i32 @llvm.amdgcn.workitem.id.x()",
        f"define amdgpu_kernel void @k({parameters}) #0 {{",
        "%t0 = call i32 @llvm.amdgcn.workitem.id.x()", "%t = and i32 %t0, 255",
    ]  # fmt: skip
    for name, kind in zip(names, intrinsic.types, strict=True):
        lines.append(f"%p{name} = getelementptr {kind}, {pointer} %{name}, i32 %t")
        lines.append(f"%v{name} = load {kind}, {pointer} %p{name}")
    lines += [
        f"%r = {intrinsic.call([f'%v{name}' for name in names])}",
        _as_integer(intrinsic.result, "%r", "%q"),
        f"%po = getelementptr {integer}, {pointer} %out, i32 %t",
        f"store {integer} %q, {pointer} %po", "ret void", "}",
        'attributes #0 = { "amdgpu-flat-work-group-size"="256,256" }',
    ]  # fmt: skip
    command = [llc, "-O2", "-mcpu=gfx942", "-o", "-"]
    text = "\n".join(lines)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
