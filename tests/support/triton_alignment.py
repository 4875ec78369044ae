"""A kernel that says more of its rows' alignment than may be true: device code."""

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
