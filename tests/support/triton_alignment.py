"""Kernels that say more of their addresses' alignment than may be true: device code."""

import triton
import triton.language as tl


@triton.jit
def picked_rows(data, table, out, WIDTH: tl.constexpr, COUNT: tl.constexpr, HINT: tl.constexpr):
    """COUNT rows of WIDTH words, named by `table` and said to be multiples of HINT; 32 words of
    each are copied."""
    e = tl.arange(0, COUNT)
    d = tl.arange(0, 32)
    rows = tl.multiple_of(tl.load(table + e), HINT)
    tl.store(out + e[:, None] * 32 + d[None, :], tl.load(data + rows[:, None] * WIDTH + d[None, :]))


@triton.jit
def low_halves(data, out, first, COUNT: tl.constexpr):
    """The low words of COUNT numbers of 8 bytes that begin at word `first`, one after the other:
    between stores, so that gfx942 reads them by vector instructions."""
    numbers = (data + first).to(tl.pointer_type(tl.int64), bitcast=True)
    for i in range(COUNT):
        low = tl.load(numbers + i).to(tl.int32)
        tl.store(out + i, low)
