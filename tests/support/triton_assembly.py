"""Kernels made of one instruction, whose text is a constant of the kernel. Device code alone."""

import triton
import triton.language as tl


@triton.jit
def vector(x, y, z, out, B: tl.constexpr, TEXT: tl.constexpr):
    """TEXT: instructions from the registers $1, $2 and $3 to $0."""
    at = tl.arange(0, B)
    args = [tl.load(x + at), tl.load(y + at), tl.load(z + at)]
    r = tl.inline_asm_elementwise(
        TEXT, "=&v,v,v,v,~{vcc},~{scc}", args, dtype=tl.int32, is_pure=True, pack=1
    )
    tl.store(out + at, r)


@triton.jit
def scalar(x, y, out, TEXT: tl.constexpr):
    """TEXT: instructions from s[20:21] and s[22:23] to s[24:25], and SCC. Four words out."""
    at = tl.program_id(0) * 2
    low = tl.load(x + at)
    high = tl.load(x + at + 1)
    other = tl.load(y + at)
    more = tl.load(y + at + 1)
    used: tl.constexpr = "~{s20},~{s21},~{s22},~{s23},~{s24},~{s25},~{s26},~{vcc},~{scc}"
    text: tl.constexpr = (
        "v_readfirstlane_b32 s20, $3\n v_readfirstlane_b32 s21, $4\n"
        "v_readfirstlane_b32 s22, $5\n v_readfirstlane_b32 s23, $6\n"
        "s_mov_b64 s[24:25], s[22:23]\n s_cmp_eq_u32 s20, s20\n" + TEXT + "\n"
        "s_cselect_b32 s26, 1, 0\n"
        "v_mov_b32 $0, s24\n v_mov_b32 $1, s25\n v_mov_b32 $2, s26"
    )
    a, b, c = tl.inline_asm_elementwise(
        text, "=&v,=&v,=&v,v,v,v,v," + used, [low, high, other, more],
        dtype=(tl.int32, tl.int32, tl.int32), is_pure=True, pack=1,
    )  # fmt: skip
    tl.store(out + tl.program_id(0) * 3, a)
    tl.store(out + tl.program_id(0) * 3 + 1, b)
    tl.store(out + tl.program_id(0) * 3 + 2, c)
